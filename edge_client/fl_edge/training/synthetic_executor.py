"""Executes ``synthetic-N``: training returns at once, with small numbers that depend on client, round and seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fl_edge.errors import ManifestMismatchError, PayloadError
from fl_edge.tasks.task import Scores
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.executor import DataSummary, TrainedUpdate, VectorAllocator, edge_seed
from fl_shared.protocol.messages import MetricDeclaration, Partition, Split, TrainingRequest, UpdateMetrics
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector

if TYPE_CHECKING:
    from fl_edge.training.example_level import PrivateSgd

MAX_MAGNITUDE: Final = 1e-3
"""Of each value of a delta, and of the first weights."""
_BLOCK: Final = 65_521
"""Random values, which are then repeated. A prime number, so that no two chunks are equal."""


class SyntheticExecutor:
    """The executor of ``synthetic-N`` (see `executor.Executor`), with ``values`` parameters."""

    def __init__(self, values: int) -> None:
        head_values = values // 10
        arrays = [ArraySpec(name="body", shape=(values - head_values,))]
        if head_values:
            arrays.append(ArraySpec(name="head", shape=(head_values,)))
        self._manifest = Manifest(arrays=tuple(arrays))

    def declared_metrics(self) -> tuple[MetricDeclaration, ...]:
        return ()

    def abilities(self) -> tuple[str, ...]:
        return ()

    def compare(self, run: Manifest) -> None:
        if run.digest != self._manifest.digest:
            raise ManifestMismatchError(f"the run's model has {run.values} values in other arrays")

    def summarize(self, client: str, partition: Partition | None) -> DataSummary:  # noqa: ARG002
        return DataSummary(0 if partition is None else 1, 0, self._manifest)

    def load_test(self) -> None:
        """Does nothing: there is no data."""

    def initial_weights(self, seed: int, allocate: VectorAllocator) -> Manifest:
        _fill(allocate(self._manifest.values), np.random.SeedSequence(seed))
        return self._manifest

    def train(
        self,
        base: Vector,
        manifest: Manifest,
        partition: Partition,
        settings: TrainingRequest,
        round_number: int,
        client: str,
        cancelled: Callable[[], bool],  # noqa: ARG002  it returns too soon
        allocate: VectorAllocator,
        correction: CorrectionRequest | None = None,
        local: Vector | None = None,  # noqa: ARG002  nothing stays on the edge
        private: PrivateSgd | None = None,
    ) -> TrainedUpdate:
        if correction is not None:
            raise ValueError(f"a synthetic task takes no steps that {correction.name} could correct")
        if private is not None:
            raise ValueError("a synthetic task takes no steps in which --dp-sgd could hide examples")
        started = time.perf_counter()
        self._check(base, manifest)
        delta = allocate(len(base))
        _fill(delta, edge_seed(settings.seed, round_number, client))
        return TrainedUpdate(
            delta,
            self.summarize(client, partition).examples,
            1,
            time.perf_counter() - started,
            UpdateMetrics(),
        )

    def evaluate(
        self,
        model: Vector,
        manifest: Manifest,
        split: Split,  # noqa: ARG002
        client: str,  # noqa: ARG002
        partition: Partition | None,  # noqa: ARG002
        local: Vector | None = None,  # noqa: ARG002
    ) -> Scores:
        self._check(model, manifest)
        return Scores(examples=1, loss=0.0)

    def make_predictor(
        self,
        model: Vector,
        manifest: Manifest,
        client: str = "",  # noqa: ARG002
        partition: Partition | None = None,  # noqa: ARG002
        local: Vector | None = None,  # noqa: ARG002
    ) -> Callable[[bytes], dict[str, Any]]:
        self._check(model, manifest)

        def predict(_payload: bytes) -> dict[str, Any]:
            raise PayloadError("a synthetic model makes no predictions")

        return predict

    def example_request(self) -> Any:
        return None

    def _check(self, model: Vector, manifest: Manifest) -> None:
        if manifest != self._manifest or len(model) != manifest.values:
            raise ValueError(
                f"the received model has {len(model)} values, {manifest.values} by its manifest; "
                f"expected {self._manifest.values}"
            )


def _fill(vector: Vector, seed: np.random.SeedSequence) -> None:
    block = np.random.default_rng(seed).random(_BLOCK, dtype=np.float32)
    block -= np.float32(0.5)
    block *= np.float32(2 * MAX_MAGNITUDE)
    for start in range(0, len(vector), _BLOCK):
        block_view = vector[start : start + _BLOCK]
        block_view[:] = block[: len(block_view)]
