"""How the work of one task is done, vectors in and vectors out. No torch in here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fl_shared.protocol.messages import Partition, Split, TrainingSettings, UpdateMetrics
from fl_shared.tensors.manifest import Manifest, Vector

if TYPE_CHECKING:
    from fl_edge.tasks.task import Scores

VectorAllocator = Callable[[int], Vector]
"""Makes the vector, of so many values, in which a result goes: to be called once, and filled."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedUpdate:
    """``delta``: local − base, shape (manifest.values,), finite; ``seconds`` of training and evaluation."""

    delta: Vector
    examples: int
    steps: int
    seconds: float
    metrics: UpdateMetrics


@dataclass(frozen=True, slots=True)
class DataSummary:
    """Examples for training, examples held out, the weights' manifest; of each class how many, where it has a name."""

    examples: int
    holdout_examples: int
    manifest: Manifest
    labels: dict[str, int] = field(default_factory=dict)


class Executor(Protocol):
    """Vectors have the shape (manifest.values,). Raises what is in `errors`, and ``ValueError``."""

    def summarize(self, partition: Partition | None) -> DataSummary:
        """What there is to learn from, and what is learnt."""

    def initial_weights(self, seed: int, make: VectorAllocator) -> Manifest:
        """Fills the first weights, which depend on ``seed`` alone."""

    def train(
        self,
        base: Vector,
        manifest: Manifest,
        partition: Partition,
        settings: TrainingSettings,
        round_number: int,
        client: str,
        cancelled: Callable[[], bool],
        make: VectorAllocator,
    ) -> TrainedUpdate:
        """Local − base, in the vector that ``make`` gives. ``base`` may be written to."""

    def evaluate(
        self, model: Vector, manifest: Manifest, split: Split, partition: Partition | None
    ) -> Scores:
        """On the test split, or what is held out of the part."""

    def make_predictor(self, model: Vector, manifest: Manifest) -> Callable[[bytes], dict[str, float]]:
        """What gives the probability of each label for a request."""


def edge_seed(seed: int, round_number: int, client: str) -> np.random.SeedSequence:
    """All the chance of one edge in one round (protocol, 5.4)."""
    name = int.from_bytes(hashlib.sha256(client.encode()).digest()[:8], "big")
    return np.random.SeedSequence([seed, round_number, name])


def encoding_seed(seed: int, round_number: int, client: str) -> int:
    """What an edge's encoding may draw from in one round, apart from all that training draws."""
    _, apart = edge_seed(seed, round_number, client).spawn(2)
    return int(apart.generate_state(1, np.uint64)[0])
