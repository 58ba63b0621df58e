"""A real run, the edges that a test plays for it, and the refusals that the run must count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import msgpack
import numpy as np

from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.builders import session_of
from tests.support.invalid_updates import VALUES
from tests.support.simulated_edges import SimulatedEdges
from tests.support.wait import wait_until

CHUNK = 1024


def pack(fields: dict[str, Any]) -> bytes:
    return cast(bytes, msgpack.packb(fields))


class RunUnderTest:
    """A run, its hand-made edges, and what is to be counted."""

    def __init__(self, run: programs.Program, wire: SimulatedEdges, clients: Sequence[str]) -> None:
        self.run = run
        self.wire = wire
        self.chance = np.random.default_rng(7)
        self.deltas = {client: self.chance.normal(0, 0.1, VALUES).astype(np.float32) for client in clients}
        self.examples = {client: 10 + 7 * rank for rank, client in enumerate(clients)}
        self.refused: dict[str, Counter[str]] = {}
        self.base: str | None = None
        self.round = 1

    def good(self, client: str) -> dict[str, Any]:
        delta = self.deltas[client]
        return self.wire.update(client, self.round, self.base, delta, self.examples[client])

    def count(self, client: str, reason: str, words: Sequence[str], times: int = 1) -> None:
        """It is to be counted; and the first time, it is said with these words."""
        counts = self.refused.setdefault(client, Counter())
        counts[reason] += times
        if counts[reason] != times:
            return
        begin = f"refused a message from {client} ({reason}, "
        said = wait_until(
            lambda: [line for line in self.run.err.splitlines() if begin in line], 10, f"{begin}…)"
        )
        assert all(word in said[0] for word in words), (words, said[0])

    def rejected(self, client: str, reason: str, words: Sequence[str], label: str | None = None) -> None:
        reply = self.wire.expect(m.Rejected, 10, client=client, session=session_of(client))
        assert reply.reason == reason, reply
        assert all(word in reply.detail for word in words), (words, reply.detail)
        self.count(label or client, reason, words)

    def accepted(self, client: str) -> None:
        reply = self.wire.expect(m.Accepted, 10, client=client, round=self.round)
        assert reply.session == session_of(client)

    def part(self, update: dict[str, Any], index: int, data: bytes | None = None) -> bytes:
        whole = update["sections"][0]["data"]
        data = whole[index * CHUNK : (index + 1) * CHUNK] if data is None else data
        head = {
            name: update[name]
            for name in ("v", "run", "incarnation", "seq", "client", "session", "round", "digest")
        }
        return pack(head | {"kind": "update-chunk", "index": index, "data": data})
