"""The interface of a tracker, and all of a run's trackers together. Their failures never stop the run."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Protocol, Self

from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round.effects import Effect
from fl_aggregator.round.state import Run
from fl_aggregator.storage.run_directory import RunRecord

LOG: Final = logging.getLogger(__name__)

MAX_QUEUED_CALLS: Final = 1000
CLOSE_TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class RuntimeMetrics:
    """Numbers about a run that are not in its state.

    ``inbox_items``: messages that wait. ``spool_bytes``: bytes of the spool on disk. ``bytes_up``,
    ``bytes_down``: traffic in this incarnation. ``refused``: messages by reason.
    """

    inbox_items: int
    spool_bytes: int
    bytes_up: int
    bytes_down: int
    connected: bool
    paused: bool
    refused: Mapping[str, int]

    @property
    def without_counts(self) -> RuntimeMetrics:
        """The same without what would tell how many edges take part."""
        return replace(self, inbox_items=0, spool_bytes=0, bytes_up=0, bytes_down=0, refused={})


class Tracker(Protocol):
    """Passes a run's numbers to another program. Any method may raise any exception.

    ``observe`` is called on the loop's thread after each step, and must be fast. The other methods are called
    in order on a thread that belongs to the trackers.
    """

    name: str

    def begin(
        self, run: RunRecord, earlier: Iterable[RoundRecord], runtime_metrics: Callable[[], RuntimeMetrics]
    ) -> None:
        """Is called when a run begins, or resumes after the rounds in ``earlier``.

        ``runtime_metrics`` may be called on any thread.
        """

    def observe(self, state: Run, effects: tuple[Effect, ...]) -> None:
        """Is called after each step, with the new state and the effects of the step."""

    def log_round(self, record: RoundRecord) -> None:
        """Is called when a round has ended and its record is complete."""

    def close(self, outcome: str | None) -> None:
        """Is called at the end. ``outcome``: the phase in which the run ended, null after an error.

        If `begin` was not called, there was no run.
        """


class Trackers:
    """Passes each call on to all trackers. Logs the first failure of each, and counts them in ``failures``.

    ``max_waiting``: calls that may wait for slow trackers; further ones are dropped and counted as failures.
    ``close_timeout``: seconds that the end of a run waits for the remaining calls.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker] = (),
        failures: Counter[str] | None = None,
        *,
        max_waiting: int = MAX_QUEUED_CALLS,
        close_timeout: float = CLOSE_TIMEOUT,
    ) -> None:
        self._trackers = tuple(trackers)
        self._max_waiting, self._close_timeout = max_waiting, close_timeout
        self._queue: queue.Queue[tuple[Tracker, Callable[[], None]] | None] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._outcome: str | None = None
        self.failures: Counter[str] = Counter() if failures is None else failures

    def __enter__(self) -> Self:
        if self._trackers:
            self._thread = threading.Thread(target=self._run, name="fl-trackers", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread = self._thread
        if thread is None:
            return
        for tracker in self._trackers:
            self._queue.put((tracker, lambda t=tracker: t.close(self._outcome)))  # type: ignore[misc]
        self._queue.put(None)
        thread.join(self._close_timeout)
        if thread.is_alive():
            LOG.warning("trackers are still writing after %g s; the rest is lost", self._close_timeout)

    def begin(
        self, run: RunRecord, earlier: Iterable[RoundRecord], runtime_metrics: Callable[[], RuntimeMetrics]
    ) -> None:
        """Queues the call for the trackers' thread. Of secret cohorts, they see only what others may see."""
        if not self._trackers:
            return
        secret = run.settings.has_secret_cohorts
        metrics = (lambda: runtime_metrics().without_counts) if secret else runtime_metrics
        records = tuple(record.shown for record in earlier)
        for tracker in self._trackers:
            self._enqueue(tracker, lambda t=tracker: t.begin(run, records, metrics))  # type: ignore[misc]

    def observe(self, state: Run, effects: tuple[Effect, ...]) -> None:
        """Calls all trackers at once, on the loop's thread."""
        for tracker in self._trackers:
            self._call_safely(tracker, lambda t=tracker: t.observe(state, effects))  # type: ignore[misc]

    def log_round(self, record: RoundRecord) -> None:
        """Queues the call for the trackers' thread."""
        for tracker in self._trackers:
            self._enqueue(tracker, lambda t=tracker: t.log_round(record.shown))  # type: ignore[misc]

    def run_ended(self, outcome: str) -> None:
        """Sets the phase in which the run ended, which `Tracker.close` receives."""
        self._outcome = outcome

    def _enqueue(self, tracker: Tracker, action: Callable[[], None]) -> None:
        if self._queue.qsize() >= self._max_waiting:
            self._record_failure(tracker, f"{self._max_waiting} rounds are waiting to be written")
        else:
            self._queue.put((tracker, action))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            self._call_safely(*item)

    def _call_safely(self, tracker: Tracker, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # not even a tracker's bug may stop the run
            self._record_failure(tracker, f"{type(error).__name__}: {error}")

    def _record_failure(self, tracker: Tracker, reason: str) -> None:
        self.failures[tracker.name] += 1
        if self.failures[tracker.name] == 1:
            LOG.warning(
                "%s: %s; the run continues, and further failures are only counted", tracker.name, reason[:300]
            )
