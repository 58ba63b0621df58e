"""The interface of executors, which train, evaluate and predict on flat vectors. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fl_shared.protocol.messages import (
    MetricDeclaration,
    Partition,
    Split,
    TrainingRequest,
    TrainingSettings,
    UpdateMetrics,
)
from fl_shared.tensors.manifest import Manifest, Vector

if TYPE_CHECKING:
    from fl_edge.tasks.task import Scores, TrainingDefaults
    from fl_edge.training.corrections.correction import CorrectionRequest
    from fl_edge.training.example_level import PrivateSgd

VectorAllocator = Callable[[int], Vector]
"""Allocates the vector, of the given number of values, for a result. Called once; the caller fills it."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedUpdate:
    """A trained update. ``delta``: local − base, finite, shape (manifest.values,); ``seconds``: with evaluation.

    ``sections`` go with the update and are like ``delta``; ``own`` stays on the edge until its next training.
    """

    delta: Vector
    examples: int
    steps: int
    seconds: float
    metrics: UpdateMetrics
    sections: Mapping[str, Vector] = field(default_factory=dict)
    own: Mapping[str, Vector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataSummary:
    """An edge's numbers of examples, the manifest of its weights, and its examples in each named class.

    ``local``: the names of the arrays of its model that stay on the edge, sorted.
    """

    examples: int
    holdout_examples: int
    manifest: Manifest
    labels: dict[str, int] = field(default_factory=dict)
    local: tuple[str, ...] = ()


class Executor(Protocol):
    """Does the work of one task. Vectors have the shape (manifest.values,). Raises ``EdgeError`` and ``ValueError``."""

    def declared_metrics(self) -> tuple[MetricDeclaration, ...]:
        """Returns the metrics that the task declares."""

    def abilities(self) -> tuple[str, ...]:
        """Returns what the training of the task can do besides plain SGD (protocol, 4.11)."""

    def compare(self, run: Manifest) -> None:
        """Raises ``EdgeError``, which says how ``run``, the weights of the run's model, differ from those here."""

    def summarize(self, client: str, partition: Partition | None) -> DataSummary:
        """Returns the numbers of examples in the partition of ``client``, and the manifest of the weights."""

    def load_test(self) -> None:
        """Loads the test split, and raises what an evaluation on it would raise for its data."""

    def initial_weights(self, seed: int, allocate: VectorAllocator) -> Manifest:
        """Writes the first weights, which depend on ``seed`` alone, into a vector of ``allocate``."""

    def train(
        self,
        base: Vector,
        manifest: Manifest,
        partition: Partition,
        settings: TrainingRequest,
        round_number: int,
        client: str,
        cancelled: Callable[[], bool],
        allocate: VectorAllocator,
        correction: CorrectionRequest | None = None,
        local: Vector | None = None,
        private: PrivateSgd | None = None,
    ) -> TrainedUpdate:
        """Trains from ``base``; local − base is written into a vector of ``allocate``. ``base`` may be overwritten.

        ``local``: the arrays that stay on the edge (`local_part`); null if it has none yet. ``private`` takes the steps
        and hides single examples; null: nothing does.
        """

    def evaluate(
        self,
        model: Vector,
        manifest: Manifest,
        split: Split,
        client: str,
        partition: Partition | None,
        local: Vector | None = None,
    ) -> Scores:
        """Returns the scores of ``model`` on the test split, or on the holdout of the partition of ``client``.

        ``local``: as for `train`.
        """

    def make_predictor(
        self,
        model: Vector,
        manifest: Manifest,
        client: str = "",
        partition: Partition | None = None,
        local: Vector | None = None,
    ) -> Callable[[bytes], dict[str, Any]]:
        """Returns a function from a request to its answer, which JSON can express.

        ``partition`` is that of ``client``, which answers. ``local``: as for `train`.
        """

    def example_request(self) -> Any:
        """Returns an example of a request, which JSON can express, or None."""


def training_settings(request: TrainingRequest, defaults: TrainingDefaults) -> TrainingSettings:
    """Returns the settings that the run asks for, with the task's ``defaults`` for those that it leaves open."""
    lr = defaults.lr if request.lr is None else request.lr
    return TrainingSettings(
        epochs=defaults.epochs if request.epochs is None else request.epochs,
        batch_size=defaults.batch_size if request.batch_size is None else request.batch_size,
        lr=lr * request.lr_factor,
        momentum=defaults.momentum if request.momentum is None else request.momentum,
        seed=request.seed,
        logit_adjustment=request.logit_adjustment,
    )


def edge_seed(seed: int, round_number: int, client: str) -> np.random.SeedSequence:
    """Returns the seed of all random numbers of one edge in one round (protocol, 5.4)."""
    name = int.from_bytes(hashlib.sha256(client.encode()).digest()[:8], "big")
    return np.random.SeedSequence([seed, round_number, name])


def encoding_seed(seed: int, round_number: int, client: str) -> int:
    """Returns the seed of an edge's encoding in one round, independent of the seed of its training."""
    _, apart = edge_seed(seed, round_number, client).spawn(2)
    return int(apart.generate_state(1, np.uint64)[0])
