"""The versions of a run, computed from the messages on the wire alone: what the exact fold promises (protocol, 5.10).

For runs of plain ``fedavg`` with ``f32`` and no buffers, whatever the edges are written in.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from fl_shared.protocol import messages as m
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.manifest import Vector
from tests.support.received import Inbox


class _Sent(NamedTuple):
    examples: int
    manifest: str
    delta: Vector


def check_versions(watcher: Inbox) -> int:
    """Returns how many versions the run has made. Fails unless each has the bits that its updates give.

    ``watcher`` has received all messages of the run, from its beginning on.
    """
    sent = _updates(watcher)
    scales = {one.round: 2.0**one.fold.scale_bits for one in watcher.all(m.Selected)}
    accepted = {(one.round, one.client): one.digest for one in watcher.all(m.Accepted)}
    results = {one.round: one for one in watcher.all(m.Result) if one.outcome == "committed"}
    model: Vector | None = None
    for number, result in sorted(results.items()):
        updates = []
        for client in result.participants:
            (only, *others) = of_client = sent[number, client]
            assert not others or (number, client) in accepted, "several updates, of which none was accepted"
            updates.append(of_client[accepted.get((number, client), only)])
        examples = sum(update.examples for update in updates)
        assert examples == result.examples
        if model is None:
            model = updates[0].delta
        else:
            scale = scales[number]
            total = sum(
                np.rint(update.delta.astype(np.float64) * update.examples * scale).astype(np.int64)
                for update in updates
            )
            mean = np.asarray(total).astype(np.float64) / (examples * scale)
            model = (model.astype(np.float64) + mean).astype("<f4")
        digest = content_digest([("weights", "f32", updates[0].manifest, model.tobytes())])
        assert digest == result.digest, f"version {result.version} of round {number}"
    return len(results)


def _updates(watcher: Inbox) -> dict[tuple[int, str], dict[str, _Sent]]:
    """All updates by round and client, and then by digest: whole ones, and those in chunks that have all come."""
    found: dict[tuple[int, str], dict[str, _Sent]] = defaultdict(dict)
    for whole in watcher.all(m.Update):
        found[whole.round, whole.client][whole.digest] = _sent(whole, whole.sections[0].data)
    chunks: dict[tuple[str, str], dict[int, bytes]] = defaultdict(dict)
    for chunk in watcher.all(m.UpdateChunk):
        chunks[chunk.client, chunk.digest][chunk.index] = chunk.data
    for offer in watcher.all(m.Offer):
        pieces = chunks[offer.client, offer.digest]
        if len(pieces) == offer.chunks:
            data = b"".join(pieces[index] for index in sorted(pieces))
            found[offer.round, offer.client][offer.digest] = _sent(offer, data)
    return found


def _sent(update: m.Update | m.Offer, data: bytes) -> _Sent:
    (section,) = update.sections
    assert section.encoding == "f32"
    return _Sent(update.examples, section.manifest, np.frombuffer(data, "<f4"))
