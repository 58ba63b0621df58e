"""The work of edges, which is done when its result is looked at, or before, if a worker has nothing else to do.

A job is a promise: its virtual time of completion is known when it begins. The workers take the jobs that will be
complete first. A job that is cancelled before has cost nothing, unless a worker has begun it. Results follow from the
run's seed, the round and the client: how many workers there are, and what they do when, changes no bit.
"""

from __future__ import annotations

import heapq
import itertools
import queue
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from fl_edge.messaging.model_store import FetchedModel
from fl_edge.runtime.dispatcher import Dispatcher
from fl_edge.runtime.edge import vector_frame
from fl_edge.runtime.items import RuntimeInbox
from fl_edge.session import effects, events
from fl_edge.storage.label_counts_file import LabelCountsFile
from fl_edge.training.local_part import LOCAL
from fl_edge.workers.jobs import JobResult, Masking
from fl_edge.workers.pool import Pool


@dataclass(frozen=True, slots=True)
class Work:
    """A job: its effect, the model that it needs with the companions, and what the edge has kept of the run.

    ``masking``: null if no update is masked.
    """

    effect: effects.Load | effects.Train | effects.Evaluate | effects.Personalize
    models: tuple[FetchedModel, ...] = ()
    own: Mapping[str, memoryview] | None = None
    masking: Masking | None = None


JobEvent = events.PartitionLoaded | events.Trained | events.ModelEvaluated | events.JobFailed
"""What a job leads to."""


class Jobs(Protocol):
    """Does the work of edges."""

    def begin(self, client: str, work: Work, due: float) -> None:
        """Begins a job, whose result is asked for at ``due`` (virtual seconds), unless it is cancelled."""

    def result(self, client: str, job: int, now: float) -> JobEvent:
        """Returns the event that a job has led to, and waits for it."""

    def cancel(self, client: str, job: int) -> None:
        """Cancels a job, whose result will not be asked for."""


class PoolJobs:
    """Lets the worker processes of ``pool`` do the jobs; it puts their results into ``inbox``.

    ``check`` is called while it waits, and may raise to end that.
    """

    def __init__(
        self,
        pool: Pool,
        inbox: RuntimeInbox,
        workers: int,
        label_counts: LabelCountsFile,
        check: Callable[[], None],
    ) -> None:
        self._inbox = inbox
        self._dispatcher = Dispatcher(pool, label_counts)
        self._free = workers
        self._check = check
        self._order = itertools.count()
        self._queue: list[tuple[float, int, str, int]] = []
        self._waiting: dict[tuple[str, int], Work] = {}
        self._results: dict[tuple[str, int], JobEvent] = {}

    def begin(self, client: str, work: Work, due: float) -> None:
        """See `Jobs.begin`."""
        self._waiting[client, work.effect.job] = work
        heapq.heappush(self._queue, (due, next(self._order), client, work.effect.job))
        self._give_out()

    def result(self, client: str, job: int, now: float) -> JobEvent:
        """See `Jobs.result`."""
        while (client, job) not in self._results:
            if self._take(wait=0.5):
                self._give_out()
            else:
                self._check()
        return replace(self._results.pop((client, job)), now=now)

    def cancel(self, client: str, job: int) -> None:
        """See `Jobs.cancel`."""
        if self._waiting.pop((client, job), None) is None and self._results.pop((client, job), None) is None:
            self._dispatcher.cancel(client, job)

    def _give_out(self) -> None:
        """Gives free workers the jobs that are due first."""
        while self._take(wait=0.0):
            pass
        while self._free and self._queue:
            _, _, client, job = heapq.heappop(self._queue)
            work = self._waiting.pop((client, job), None)
            if work is not None:
                self._free -= 1
                self._start(client, work)

    def _start(self, client: str, work: Work) -> None:
        match work.effect:
            case effects.Load():
                self._dispatcher.load(client, work.effect)
            case effects.Train():
                base, *companions = work.models or (None,)
                others = [one for one in companions if one is not None]
                self._dispatcher.train(client, work.effect, base, others, work.own, work.masking)
            case effects.Evaluate():
                local = (work.own or {}).get(LOCAL)
                frame = None if local is None else vector_frame(local)
                self._dispatcher.evaluate(client, work.effect, work.models[0], frame)
            case effects.Personalize():
                self._dispatcher.personalize(client, work.effect, work.models[0], work.own or {})

    def _take(self, wait: float) -> bool:
        """Takes a result that has come, or comes within ``wait`` seconds; false if none does."""
        try:
            done = self._inbox.get(wait)
        except queue.Empty:
            return False
        assert isinstance(done, JobResult)
        self._free += 1
        found = self._dispatcher.job_done(done, 0.0)
        if found is not None:
            client, event = found
            assert isinstance(event, JobEvent)
            self._results[client, event.job] = event
        return True
