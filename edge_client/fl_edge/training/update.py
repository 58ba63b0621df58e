"""What training in torch and in NumPy have in common: checks, metrics and the delta. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fl_edge.errors import DataMissingError, DivergedError, ManifestMismatchError
from fl_edge.tasks.task import Examples, LocalData, Task, TrainReport
from fl_edge.training.corrections.observation import Observation
from fl_edge.training.executor import TrainedUpdate, VectorAllocator
from fl_edge.training.local_part import LOCAL
from fl_edge.training.task_results import checked_report, checked_scores
from fl_shared.protocol.messages import UpdateMetrics
from fl_shared.tensors.manifest import Manifest, Vector


def check_manifests_match(task: Task, sent: Manifest, expected: Manifest) -> None:
    """Raises ``ManifestMismatchError`` unless both have the same arrays, shapes and roles."""
    if sent.digest == expected.digest:
        return
    sent_arrays = {a.name: (list(a.shape), a.role) for a in sent.arrays}
    own_arrays = {a.name: (list(a.shape), a.role) for a in expected.arrays}
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

    Raises ``DataMissingError``, ``DivergedError`` and ``TaskError``.
    """
    if not len(data.train):
        raise DataMissingError(
            f"task {task.name}: this edge has no examples to train on, expected at least one"
        )
    started = time.perf_counter()
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
        raise DivergedError("training diverged: some of the weights are not finite")
    return TrainedUpdate(
        delta=delta,
        examples=len(data.train),
        steps=observation.steps or report.steps,
        seconds=time.perf_counter() - started,
        metrics=UpdateMetrics(before=before, after=after, train={"loss": report.loss}),
        sections=sections,
        own=own,
    )


def _metrics(task: Task, model: Any, holdout: Examples | None) -> dict[str, float] | None:
    if holdout is None:
        return None
    scores = checked_scores(task, task.evaluate(model, holdout))
    return {**scores.metrics, "examples": float(scores.examples), "loss": scores.loss}
