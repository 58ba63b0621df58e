"""Starts the worker processes of edges, and lets them find out whether the task and its data are there."""

from __future__ import annotations

import logging
import os
import queue
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_edge.runtime.device import never_needs_torch
from fl_edge.runtime.dispatcher import USER_ERRORS
from fl_edge.runtime.items import Interrupted, RuntimeInbox
from fl_edge.workers.jobs import FailureOutcome, JobResult
from fl_edge.workers.pool import Pool
from fl_edge.workers.process import WORKER
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m
from fl_shared.protocol.task_spec import keeps_local

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EdgeSettings:
    """The id, the roles and the state directory of one edge."""

    client: str
    roles: tuple[m.ClientRole, ...]
    state_dir: Path


def start_pool(
    task: str | None,
    data: Path | None,
    device: str,
    workers: int,
    on_done: Callable[[JobResult], None],
    *,
    light: bool,
    program: tuple[str, ...] = WORKER,
) -> Pool:
    """Starts the workers of edges that train ``task``, on a ``device`` of `training_device`. See `Pool`."""
    return Pool(
        workers, data, device, on_done, warm=not never_needs_torch(task), light=light, program=program
    )


CHECKED_PARTITION: Final = m.Partition(index=0, count=100, scheme="iid", seed=0, holdout=0.0)
"""A small partition, whose loading shows whether the data is there."""


def edges_with_data(
    pool: Pool, inbox: RuntimeInbox, task: str, edges: tuple[EdgeSettings, ...]
) -> tuple[EdgeSettings, ...]:
    """Lets a worker load the task, and the data that the edges need, before there is a connection.

    The test split is needed by edges that only evaluate. If it is missing and others train, or if a part of the model
    stays on these, they take part without them. Returns the edges that take part. Raises ``UserError`` for what the
    user must fix.
    """
    if never_needs_torch(task):
        return edges
    trains = any("train" in edge.roles for edge in edges)
    others = tuple(edge for edge in edges if edge.roles != ("evaluate",))
    evaluates = len(others) < len(edges)
    if not trains:
        _check_load(inbox, task, pool.load("", task, None, test=evaluates))
        return edges
    _check_load(inbox, task, pool.load("", task, CHECKED_PARTITION))
    if evaluates and keeps_local(task):
        return others
    if evaluates:
        try:
            _check_load(inbox, task, pool.load("", task, None, test=True))
        except UserError as error:
            LOG.warning("no edge evaluates on the test split: %s", error)
            return others
    return edges


def _check_load(inbox: RuntimeInbox, task: str, job: int) -> None:
    """Waits for the result of ``job``. Raises ``UserError`` for what the user must fix. A signal ends the wait."""
    while True:
        try:
            item = inbox.get(timeout=1.0)
        except queue.Empty:
            continue
        if isinstance(item, Interrupted):
            inbox.put(item)
            return
        if isinstance(item, JobResult) and item.id == job:
            if isinstance(item.outcome, FailureOutcome) and item.outcome.kind in USER_ERRORS:
                if item.outcome.kind == "task-options" and "?" not in task:
                    return  # the run has them
                raise UserError(item.outcome.message)
            return


def usable_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
