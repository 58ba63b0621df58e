"""Makes a fuzzed aggregator deterministic: its thread for arithmetic and its clock advance on command."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any

from fl_aggregator.server.aggregator import Aggregator


class SteppedExecutor(Executor):
    """Replaces the pool of one thread: does each job, in order, when `step` is called."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], None]] = deque()

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.append(partial(_do, future, partial(work, *arguments, **named)))
        return future

    def step(self) -> bool:
        """Does the next job; false if there is none."""
        if not self._jobs:
            return False
        self._jobs.popleft()()
        return True


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    future.set_result(work())


class SteppedAggregator(Aggregator):
    """An aggregator whose run time is ``clock``, in seconds."""

    clock = 0.0

    def _now(self) -> float:
        return self.clock

    def _seconds_until_due(self) -> float:
        return 0.0
