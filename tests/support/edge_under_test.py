"""A real edge, and the aggregator that a test plays for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import Manifest, Vector
from tests.support import programs
from tests.support.simulated_aggregator import SimulatedAggregator

TASK = "synthetic-1000"
CHUNK = 1024


class EdgeUnderTest:
    """The edge ``7``, on a broker that has things of an earlier life."""

    def __init__(self, wire: SimulatedAggregator, edge: programs.Program) -> None:
        self.wire = wire
        self.edge = edge
        self.round = 0
        self.session = ""
        self.first: m.Update | None = None

    @property
    def weights(self) -> Vector:
        assert self.first is not None
        return np.frombuffer(self.first.sections[0].data, "<f4")

    @property
    def manifest(self) -> Manifest:
        assert self.first is not None
        return Manifest(arrays=self.first.sections[0].arrays or ())

    def select(self, base: str, **changes: Any) -> int:
        self.round += 1
        self.wire.select(self.round, ("7",), m.ModelReference(version=1, digest=base), **changes)
        return self.round

    def expect_failure(self, number: int, *words: str) -> None:
        failed = self.wire.expect(m.TrainingFailed, 15, round=number)
        assert all(word in failed.detail for word in words), (words, failed.detail)

    def has_failed(self, number: int) -> bool:
        """Whether it has said that it cannot train in a round."""
        return any(one.is_a(m.TrainingFailed, round=number) for one in self.wire.pending)

    def train_normally(self, base: str) -> m.Update:
        number = self.select(base)
        update = self.wire.expect(m.Update, 15, round=number)
        assert update.base == base
        self.wire.answer(update)
        return update

    def logged(self, words: str) -> bool:
        return words in self.edge.err

    def rss(self) -> int:
        """Bytes of memory that the edge's own process has."""
        status = Path(f"/proc/{self.edge.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024

    def say(self, topic: t.Topic | str, payload: bytes, *, retain: bool = False) -> None:
        self.wire.send(topic, payload, retain=retain)
