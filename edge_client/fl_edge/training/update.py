"""What training in torch and in NumPy have in common: checks, metrics and the delta. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fl_edge.errors import DataMissingError, DivergedError, ManifestMismatchError
from fl_edge.tasks.task import Examples, LocalData, Task, TrainReport
from fl_edge.training.corrections.observation import Observation
from fl_edge.training.executor import TrainedUpdate, VectorAllocator
from fl_edge.training.local_part import LOCAL
from fl_edge.training.task_results import SMALLER_STEPS, check_finite, checked_report, checked_scores
from fl_shared.protocol.messages import UpdateMetrics
from fl_shared.tensors.manifest import Manifest, Vector


def check_manifests_match(task: Task, sent: Manifest, expected: Manifest) -> None:
    """Raises ``ManifestMismatchError`` unless both have the same arrays, shapes and roles."""
    if sent.digest == expected.digest:
        return
    sent_arrays, own_arrays = (
        {a.name: f"a {a.role} of the shape {list(a.shape)}" for a in manifest.arrays}
        for manifest in (sent, expected)
    )
    name = next(n for n in sorted({*sent_arrays, *own_arrays}) if sent_arrays.get(n) != own_arrays.get(n))
    raise ManifestMismatchError(
        f"task {task.name}: the received model is not this edge's model: array {name!r} is "
        f"{sent_arrays.get(name, 'absent')}, expected {own_arrays.get(name, 'absent')}"
    )


def make_update(
    task: Task,
    model: Any,
    data: LocalData,
    base: Vector,
    train: Callable[[], TrainReport],
    vector_of: Callable[[Any], Vector],
    allocate: VectorAllocator,
    observation: Observation,
    local_of: Callable[[Any], Vector] | None = None,
) -> TrainedUpdate:
    """Calls ``train``, which trains ``model`` in place, and returns the update.

    ``vector_of`` returns the weights of a model. The metrics are those before and after on the holdout, if there is
    one, and ``train.loss`` of the last epoch. ``observation`` sees the steps of ``train``; if it has seen any,
    its number of steps counts, and not the task's. ``local_of`` returns the part of a model that stays on the edge;
    null if nothing does.

    Raises ``DataMissingError``, ``DivergedError`` and ``TaskError``, and ``DataCorruptError`` if training diverges on
    data that are not finite.
    """
    if not len(data.train):
        raise DataMissingError(
            f"task {task.name}: this edge has no examples to train on, expected at least one"
        )
    started = time.perf_counter()
    with _checking_data(task, data):
        before = _metrics(task, model, data.holdout)
        report = checked_report(task, train())
        sections, own = observation.end()
        after = _metrics(task, model, data.holdout)
        task.finish(model, data)
    delta = allocate(len(base))
    np.subtract(vector_of(model), base, out=delta)
    if local_of is not None:
        own[LOCAL] = local_of(model)
    if not (np.isfinite(delta).all() and np.isfinite(own.get(LOCAL, 0)).all()):
        check_finite(task, data)
        raise DivergedError(f"training diverged: some of the weights are not finite; {SMALLER_STEPS}")
    observation.check_change(delta)
    return TrainedUpdate(
        delta=delta,
        examples=len(data.train),
        steps=observation.steps or report.steps,
        seconds=time.perf_counter() - started,
        metrics=UpdateMetrics(before=before, after=after, train={"loss": report.loss}),
        sections=sections,
        own=own,
    )


@contextmanager
def _checking_data(task: Task, data: LocalData) -> Iterator[None]:
    """Looks for the cause in the data if training diverges, and only then, since this takes time."""
    try:
        yield
    except DivergedError:
        check_finite(task, data)
        raise


def _metrics(task: Task, model: Any, holdout: Examples | None) -> dict[str, float] | None:
    if holdout is None:
        return None
    scores = checked_scores(task, task.evaluate(model, holdout))
    return {**scores.metrics, "examples": float(scores.examples), "loss": scores.loss}
