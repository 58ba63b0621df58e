"""Makes and trains a dense model with NumPy, as a light edge does (see `trial.Trial`). Imports no torch."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from fl_edge.tasks.dense import DenseTask
from fl_edge.tasks.dense_network import DenseNetwork
from fl_edge.tasks.task import LocalData
from fl_edge.tools.trial import CLIENT
from fl_edge.training.executor import TrainedUpdate
from fl_edge.training.light_executor import LightExecutor
from fl_shared.protocol.messages import Partition, TrainingRequest, TrainingSettings
from fl_shared.tensors.manifest import Manifest, Vector

_WHOLE = Partition(index=0, count=1, scheme="own", seed=0, holdout=0.0)


class _Given(LightExecutor):
    """An executor that trains on the data that it is given."""

    data: LocalData

    def load(self, client: str, partition: Partition) -> LocalData:  # noqa: ARG002
        return self.data


class LightTrial:
    """The trial of a task whose model is dense."""

    def __init__(self, task: DenseTask, data_dir: Path | None) -> None:
        self._task, self._data_dir = task, data_dir

    @cached_property
    def _executor(self) -> _Given:
        return _Given(self._task, self._data_dir)

    def describe(self) -> str:
        sizes = self._task.layers().sizes
        parameters = sum(one.values for one in self._manifest().arrays if one.role == "parameter")
        return f"dense layers of {' → '.join(map(str, sizes))}, {parameters:,} parameters, with NumPy"

    def initial_weights(self, seed: int) -> tuple[Manifest, Vector]:
        found: list[Vector] = []

        def allocate(values: int) -> Vector:
            found.append(np.empty(values, np.float32))
            return found[-1]

        return self._executor.initial_weights(seed, allocate), found[-1]

    def kinds(self) -> dict[str, str]:
        return {one.name: "float32" for one in self._manifest().arrays}

    def tied(self) -> list[list[str]]:
        return []

    def frozen(self) -> list[str]:
        return []

    def train(
        self,
        data: LocalData,
        weights: Vector,
        manifest: Manifest,
        settings: TrainingSettings,
        clip_gradients: float = 0.0,
    ) -> TrainedUpdate:
        self._executor.data = data
        request = TrainingRequest(**settings.model_dump(), clip_gradients=clip_gradients)
        return self._executor.train(
            weights,
            manifest,
            _WHOLE,
            request,
            1,
            CLIENT,
            lambda: False,
            lambda count: np.empty(count, np.float32),
        )

    def model_from(self, weights: Vector, manifest: Manifest) -> DenseNetwork:
        return self._executor.model_from(weights, manifest)

    def _manifest(self) -> Manifest:
        return self._executor.own_manifest()
