"""Surveys a task's data: the vector that an edge sends has its sums, and no model is trained. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fl_edge.errors import DataMismatchError, PayloadError, TaskError
from fl_edge.tasks.classes import occurrences
from fl_edge.tasks.survey import Columns, Surveyed
from fl_edge.tasks.task import LoadContext, Scores, Task
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.executor import DataSummary, TrainedUpdate, VectorAllocator
from fl_shared.protocol.messages import MetricDeclaration, Partition, Split, TrainingRequest, UpdateMetrics
from fl_shared.survey import proportions
from fl_shared.survey.layout import MOST_VALUES, NumberSums, Sums
from fl_shared.survey.terms import SurveyTerms
from fl_shared.tensors.manifest import Manifest, Vector

if TYPE_CHECKING:
    from fl_edge.training.example_level import PrivateSgd

MAX_FIGURES: Final = 60
"""Figures of its own that an edge sends at most, if it may."""
_MAX_FIGURE_NAME: Final = 57


class SurveyExecutor:
    """The executor of a task that is surveyed (see `executor.Executor`). ``data_dir``: where its files are."""

    def __init__(self, task: Task, data_dir: Path | None, terms: SurveyTerms) -> None:
        self._task = task
        self._data_dir = data_dir
        self._terms = terms
        task.prepare(data_dir)

    @cached_property
    def _columns(self) -> Columns:
        found: object = self._task.survey_columns()
        if not isinstance(found, Columns):
            raise TaskError(
                f"task {self._task.name}: survey_columns(): {found!r:.100}, expected fl_edge.tasks.survey.Columns"
            )
        unknown = sorted(set(self._terms.ranges) - set(found.numbers))
        if unknown:
            known = ", ".join(found.numbers) or "none"
            raise DataMismatchError(
                f"--range {unknown[0]}: is not a column of numbers; expected one of: {known}"
            )
        return found

    @cached_property
    def _manifest(self) -> Manifest:
        make = proportions.manifest_of if self._terms.private else Columns.manifest
        return make(self._columns, self._terms)

    def declared_metrics(self) -> tuple[MetricDeclaration, ...]:
        return ()

    def abilities(self) -> tuple[str, ...]:
        return ()

    def compare(self, run: Manifest) -> None:
        if run == self._manifest:
            return
        problem = self._columns.difference(Columns.of(run)) or "its sums have another form"
        raise DataMismatchError(f"task {self._task.name}: {problem}")

    def summarize(self, client: str, partition: Partition | None) -> DataSummary:
        if partition is None:
            return DataSummary(0, 0, self._manifest)
        examples = min(1, self._surveyed(client, partition).examples)
        return DataSummary(1 if self._terms.private else examples, 0, self._manifest)

    def load_test(self) -> None:
        """Does nothing: a test split is not surveyed."""

    def initial_weights(self, seed: int, allocate: VectorAllocator) -> Manifest:  # noqa: ARG002
        allocate(self._manifest.values)[:] = 0
        return self._manifest

    def train(
        self,
        base: Vector,
        manifest: Manifest,
        partition: Partition,
        settings: TrainingRequest,  # noqa: ARG002
        round_number: int,  # noqa: ARG002
        client: str,
        cancelled: Callable[[], bool],  # noqa: ARG002  it returns soon
        allocate: VectorAllocator,
        correction: CorrectionRequest | None = None,
        local: Vector | None = None,  # noqa: ARG002  nothing stays on the edge
        private: PrivateSgd | None = None,
    ) -> TrainedUpdate:
        if correction is not None or private is not None:
            raise ValueError("a survey takes no steps that could be changed")
        started = time.perf_counter()
        self.compare(manifest)
        sums = self._sums(self._surveyed(client, partition))
        delta = allocate(len(base))
        if self._terms.private:
            delta[:] = proportions.vector_of(sums, manifest, self._terms)
            figures = UpdateMetrics()
        else:
            delta[:] = sums.vector(manifest)
            figures = UpdateMetrics(train=_figures(sums))
        return TrainedUpdate(delta, 1, 1, time.perf_counter() - started, figures)

    def evaluate(
        self,
        model: Vector,  # noqa: ARG002
        manifest: Manifest,  # noqa: ARG002
        split: Split,  # noqa: ARG002
        client: str,  # noqa: ARG002
        partition: Partition | None,  # noqa: ARG002
        local: Vector | None = None,  # noqa: ARG002
    ) -> Scores:
        return Scores(examples=1, loss=0.0)

    def make_predictor(
        self,
        model: Vector,  # noqa: ARG002
        manifest: Manifest,  # noqa: ARG002
        client: str = "",  # noqa: ARG002
        partition: Partition | None = None,  # noqa: ARG002
        local: Vector | None = None,  # noqa: ARG002
    ) -> Callable[[bytes], dict[str, Any]]:
        def predict(_payload: bytes) -> dict[str, Any]:
            raise PayloadError("a survey has no model that makes predictions")

        return predict

    def example_request(self) -> Any:
        return None

    def _surveyed(self, client: str, partition: Partition) -> Surveyed:
        found: object = self._task.survey(LoadContext(client, partition, self._data_dir))
        if not isinstance(found, Surveyed):
            raise TaskError(
                f"task {self._task.name}: survey(): {found!r:.100}, expected fl_edge.tasks.survey.Surveyed"
            )
        for kind, expected, given in (
            ("numbers", self._columns.numbers, found.numbers),
            ("categories", self._columns.categories, found.categories),
        ):
            if set(expected) != set(given):
                raise TaskError(
                    f"task {self._task.name}: survey(): {kind}: {', '.join(given) or 'none'}, "
                    f"expected those of survey_columns(): {', '.join(expected) or 'none'}"
                )
        return found

    def _sums(self, data: Surveyed) -> Sums:
        columns, terms = self._columns, self._terms
        classes = _counts(self._task, "labels", data.labels, columns.classes)
        numbers = {}
        for name in columns.numbers:
            values = np.asarray(data.numbers[name], np.float64).reshape(-1)
            if len(values) > MOST_VALUES:
                raise DataMismatchError(
                    f"column {name!r}: {len(values)} values, expected at most {MOST_VALUES} on an edge"
                )
            numbers[name] = NumberSums.of(values, name, terms)
        categories = {}
        for name, named in columns.categories.items():
            places = np.asarray(data.categories[name], np.float64).reshape(-1)
            there = places[~np.isnan(places)]
            counts = _counts(self._task, name, there, named) if named else {}
            categories[name] = len(there), len(places) - len(there), counts
        return Sums(1, data.examples, classes, numbers, categories)


def _counts(task: Task, what: str, places: Any, names: tuple[str, ...]) -> dict[str, int]:
    """Returns how many of ``places``, which count from 0, belong to each name."""
    if not names:
        return {}
    counts = occurrences(np.asarray(places), len(names))
    if len(counts) > len(names):
        raise TaskError(
            f"task {task.name}: survey(): {what}: {len(counts) - 1}, expected 0 to {len(names) - 1}"
        )
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _figures(sums: Sums) -> dict[str, float]:
    """Returns what an edge tells of itself, if its user allows that: the first `MAX_FIGURES`."""
    figures = {"examples": float(sums.examples)}
    figures |= {f"class {name}": float(count) for name, count in sums.classes.items()}
    for name, column in sums.numbers.items():
        figures[f"missing {name}"] = float(column.missing)
        if column.moments.count:
            figures |= {f"mean {name}": column.moments.mean, f"deviation {name}": column.moments.deviation}
    short = [(name, value) for name, value in figures.items() if len(name) <= _MAX_FIGURE_NAME]
    return dict(short[:MAX_FIGURES])
