"""Executes a `Task` in torch (see `executor.Executor`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from fl_edge.tasks import classes
from fl_edge.tasks.task import LoadContext, LocalData, Scores, Task
from fl_edge.training import local_training
from fl_edge.training.executor import DataSummary, TrainedUpdate, VectorAllocator
from fl_edge.training.model_check import examine_model
from fl_edge.training.task_results import (
    checked_answer,
    checked_data,
    checked_example,
    checked_examples,
    declared_metrics,
)
from fl_shared.protocol.messages import Partition, Split, TrainingSettings
from fl_shared.tensors.manifest import Manifest, Vector


class TorchExecutor:
    """The executor of a task in torch, on ``device``. ``data_dir``: where the data set's files are."""

    def __init__(self, task: Task, data_dir: Path | None, device: str) -> None:
        local_training.configure_torch()
        self._task, self._data_dir, self._device = task, data_dir, device

    @cached_property
    def _manifest(self) -> Manifest:
        """The manifest of the model, which is examined once."""
        examine_model(self._task)
        return local_training.shared_manifest(self._task, local_training.build_model(self._task, 0))

    def summarize(self, client: str, partition: Partition | None) -> DataSummary:
        manifest, metrics = self._manifest, declared_metrics(self._task)
        if partition is None:
            return DataSummary(0, 0, manifest, metrics=metrics)
        data = self._load(client, partition)
        holdout_examples = 0 if data.holdout is None else len(data.holdout)
        return DataSummary(
            len(data.train),
            holdout_examples,
            manifest,
            classes.count_labels(self._task.labels, data),
            metrics,
        )

    def initial_weights(self, seed: int, allocate: VectorAllocator) -> Manifest:
        manifest, weights = local_training.initial_weights(self._task, seed)
        allocate(manifest.values)[:] = weights
        return manifest

    def train(
        self,
        base: Vector,
        manifest: Manifest,
        partition: Partition,
        settings: TrainingSettings,
        round_number: int,
        client: str,
        cancelled: Callable[[], bool],
        allocate: VectorAllocator,
    ) -> TrainedUpdate:
        return local_training.train_update(
            self._task,
            self._load(client, partition),
            base,
            manifest,
            settings,
            round_number,
            client,
            cancelled,
            self._device,
            allocate,
        )

    def evaluate(
        self, model: Vector, manifest: Manifest, split: Split, client: str, partition: Partition | None
    ) -> Scores:
        if split == "test":
            examples = checked_examples(self._task, "load_test()", self._task.load_test(self._data_dir))
        else:
            if partition is None:
                raise ValueError("split: holdout, but no partition was given")
            holdout = self._load(client, partition).holdout
            if holdout is None:
                raise ValueError("split: holdout, but no examples of the partition are held out")
            examples = holdout
        return local_training.evaluate(self._task, model, manifest, examples, self._device)

    def make_predictor(self, model: Vector, manifest: Manifest) -> Callable[[bytes], dict[str, Any]]:
        model_with_weights = local_training.model_from(self._task, model, manifest, self._device)
        return lambda payload: checked_answer(self._task, self._task.predict(model_with_weights, payload))

    def example_request(self) -> Any:
        return checked_example(self._task, self._task.example_request())

    def _load(self, client: str, partition: Partition) -> LocalData:
        context = LoadContext(client, partition, self._data_dir)
        return checked_data(self._task, self._task.load(context))
