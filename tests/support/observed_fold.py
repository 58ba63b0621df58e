"""What versions a run must make of the updates that an observer has seen on the wire (protocol, 5.10)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fl_shared.protocol import messages as m
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.manifest import Manifest, Vector
from tests.support.received import Received


class ObservedUpdates:
    """The updates among ``received``: which were whole, and which came in chunks."""

    def __init__(self, received: Iterable[Received]) -> None:
        self.whole: set[str] = set()
        self.chunked: set[str] = set()
        self._examples: dict[tuple[int, str], int] = {}
        self._deltas: dict[tuple[int, str], Vector] = {}
        offers: dict[str, m.Offer] = {}
        chunks: dict[str, dict[int, bytes]] = {}
        for message in (one.message for one in received):
            match message:
                case m.Update():
                    self.whole.add(message.client)
                    self._add(message, message.sections[0].data)
                case m.Offer():
                    offers[message.digest] = message
                case m.UpdateChunk():
                    chunks.setdefault(message.digest, {})[message.index] = message.data
        for digest, offer in offers.items():
            parts = chunks.get(digest, {})
            if len(parts) == offer.chunks:
                self.chunked.add(offer.client)
                self._add(offer, b"".join(parts[index] for index in range(offer.chunks)))

    def _add(self, update: m.Update | m.Offer, data: bytes) -> None:
        key = update.round, update.client
        self._examples[key] = update.examples
        self._deltas[key] = np.frombuffer(data, "<f4")

    def first_weights(self) -> Vector:
        """The update of round 0."""
        (weights,) = (delta for (number, _), delta in self._deltas.items() if number == 0)
        return weights

    def next_version(self, base: Vector, selected: m.Selected, participants: Iterable[str]) -> Vector:
        """The mean of a round, added to ``base``."""
        scale = 2.0**selected.fold.scale_bits
        keys = [(selected.round, client) for client in participants]
        total = np.zeros(len(base), np.int64)
        for key in keys:
            total += np.rint(self._deltas[key].astype(np.float64) * self._examples[key] * scale).astype(
                np.int64
            )
        change = total.astype(np.float64) / (scale * sum(self._examples[key] for key in keys))
        return (base.astype(np.float64) + change).astype("<f4")

    def versions(self, received: Iterable[Received]) -> list[tuple[str, Vector]]:
        """The digest that the run has published, and the weights that its version must have, from version 1 on."""
        messages = [one.message for one in received]
        rounds = {one.round: one for one in messages if isinstance(one, m.Selected)}
        results = {one.round: one for one in messages if isinstance(one, m.Result) and one.round > 0}
        weights, found = self.first_weights(), []
        for number, result in sorted(results.items()):
            weights = self.next_version(weights, rounds[number], result.participants)
            assert result.digest is not None
            found.append((result.digest, weights))
        return found


def check_versions(received: Sequence[Received], manifest: Manifest) -> int:
    """Returns how many versions a run has made of updates. Each must have the bits that follow from these."""
    versions = ObservedUpdates(received).versions(received)
    for number, (digest, weights) in enumerate(versions, start=1):
        assert digest == content_digest([("weights", "f32", manifest.digest, weights.tobytes())]), (
            f"version {number}"
        )
    return len(versions)
