"""What the executors in torch and in NumPy have in common (see `executor.Executor`). Imports no torch."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from fl_edge.tasks import classes
from fl_edge.tasks.task import Examples, LoadContext, LocalData, Scores, Task
from fl_edge.training.corrections import registry as corrections
from fl_edge.training.executor import DataSummary
from fl_edge.training.local_part import ALL_SHARED, LocalPart
from fl_edge.training.task_results import (
    checked_answer,
    checked_data,
    checked_example,
    checked_examples,
    checked_scores,
    declared_metrics,
)
from fl_edge.training.update import check_manifests_match
from fl_shared.protocol.abilities import CLIP_GRADIENTS, LOGIT_ADJUSTMENT
from fl_shared.protocol.messages import MetricDeclaration, Partition, Split
from fl_shared.tensors.manifest import Manifest, Vector


class TaskExecutor(ABC):
    """The executor of a `Task`. ``data_dir``: where the data set's files are. ``part``: what stays on the edge."""

    def __init__(self, task: Task, data_dir: Path | None, part: LocalPart = ALL_SHARED) -> None:
        self.task = task
        self.part = part
        self._data_dir = data_dir
        self._change_data: Callable[[LocalData], LocalData] = lambda data: data
        task.prepare(data_dir)

    def with_data(self, change: Callable[[LocalData], LocalData]) -> Self:
        """Returns an executor like this one, but of data that ``change`` has changed."""
        other = copy.copy(self)
        other._change_data = change
        return other

    @abstractmethod
    def own_manifest(self) -> Manifest:
        """Returns the manifest of what is shared of the task's model, which it has checked."""

    @abstractmethod
    def unshared_names(self) -> tuple[str, ...]:
        """Returns the names of the arrays of the task's model that are not shared, sorted."""

    @abstractmethod
    def model_from(self, vector: Vector, manifest: Manifest, local: Vector | None = None) -> Any:
        """Returns the task's model with the weights in ``vector``, and ``local`` as what stays on the edge.

        Raises ``ManifestMismatchError``, which names the first array that differs, and ``ValueError`` if ``vector`` is
        too short or too long for ``manifest``.
        """

    @cached_property
    def _manifest(self) -> Manifest:
        return self.own_manifest()

    @cached_property
    def _unshared_names(self) -> tuple[str, ...]:
        return self.unshared_names()

    def declared_metrics(self) -> tuple[MetricDeclaration, ...]:
        return declared_metrics(self.task)

    def abilities(self) -> tuple[str, ...]:
        classifies = (LOGIT_ADJUSTMENT,) if self.task.labels else ()
        return (*corrections.names(), CLIP_GRADIENTS, *classifies)

    def compare(self, run: Manifest) -> None:
        self.model_from(np.zeros(run.values, np.float32), run)  # the task may know better what differs
        check_manifests_match(self.task, run, self._manifest)

    def summarize(self, client: str, partition: Partition | None) -> DataSummary:
        manifest = self._manifest
        if partition is None:
            return DataSummary(0, 0, manifest, local=self._unshared_names)
        data = self.load(client, partition)
        holdout_examples = 0 if data.holdout is None else len(data.holdout)
        labels = classes.count_labels(self.task.labels, data)
        return DataSummary(len(data.train), holdout_examples, manifest, labels, self._unshared_names)

    def load_test(self) -> None:
        self._examples("test", "", None)

    def evaluate(
        self,
        model: Vector,
        manifest: Manifest,
        split: Split,
        client: str,
        partition: Partition | None,
        local: Vector | None = None,
    ) -> Scores:
        examples = self._examples(split, client, partition)
        return checked_scores(
            self.task, self.task.evaluate(self.model_from(model, manifest, local), examples)
        )

    def make_predictor(
        self,
        model: Vector,
        manifest: Manifest,
        client: str = "",
        partition: Partition | None = None,
        local: Vector | None = None,
    ) -> Callable[[bytes], dict[str, Any]]:
        context = None if partition is None else LoadContext(client, partition, self._data_dir)
        predictor = self.task.predictor(self.model_from(model, manifest, local), context)
        return lambda payload: checked_answer(self.task, predictor(payload))

    def example_request(self) -> Any:
        return checked_example(self.task, self.task.example_request())

    def load(self, client: str, partition: Partition) -> LocalData:
        """Returns the data of ``client``."""
        context = LoadContext(client, partition, self._data_dir)
        return self._change_data(checked_data(self.task, self.task.load(context)))

    def _examples(self, split: Split, client: str, partition: Partition | None) -> Examples:
        if split == "test":
            return checked_examples(self.task, "load_test()", self.task.load_test(self._data_dir))
        if partition is None:
            raise ValueError("split: holdout, but no partition was given")
        holdout = self.load(client, partition).holdout
        if holdout is None:
            raise ValueError("split: holdout, but no examples of the partition are held out")
        return holdout
