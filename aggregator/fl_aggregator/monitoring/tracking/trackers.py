"""What a tracker is, and all of a run's trackers together: whatever becomes of them, the run goes on."""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    """What is not in the state: ``inbox`` messages wait, ``spool_bytes`` lie on the disk, bytes went ``up`` and
    ``down`` since this start; ``refused`` messages by reason.
    """

    inbox_items: int
    spool_bytes: int
    bytes_up: int
    bytes_down: int
    connected: bool
    paused: bool
    refused: Mapping[str, int]


class Tracker(Protocol):
    """``observe`` is called in the loop's thread after each step, and must be quick; the others in a thread of the
    trackers' own, in their order. Any of them may raise anything.
    """

    name: str

    def begin(
        self, run: RunRecord, earlier: Iterable[RoundRecord], vitals: Callable[[], RuntimeMetrics]
    ) -> None:
        """A run begins, or goes on after the rounds in ``earlier``. ``vitals`` may be called in any thread."""

    def observe(self, state: Run, effects: tuple[Effect, ...]) -> None:
        """A step was made."""

    def log_round(self, record: RoundRecord) -> None:
        """A round has ended, and nothing will be added to its record."""

    def close(self, outcome: str | None) -> None:
        """``outcome``: the phase in which the run ended (null: by an error). Without `begin` there was no run."""


class Trackers:
    """Passes everything on. What a tracker raises is said once and counted in ``failures``, by the tracker's name.

    ``max_waiting``: rounds that a slow tracker may be behind; what comes then is left out, and counted.
    ``close_timeout``: seconds that the end of a run waits for what is still to be written.
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
        self, run: RunRecord, earlier: Iterable[RoundRecord], vitals: Callable[[], RuntimeMetrics]
    ) -> None:
        if not self._trackers:
            return
        records = tuple(earlier)
        for tracker in self._trackers:
            self._enqueue(tracker, lambda t=tracker: t.begin(run, records, vitals))  # type: ignore[misc]

    def observe(self, state: Run, effects: tuple[Effect, ...]) -> None:
        for tracker in self._trackers:
            self._call_safely(tracker, lambda t=tracker: t.observe(state, effects))  # type: ignore[misc]

    def log_round(self, record: RoundRecord) -> None:
        for tracker in self._trackers:
            self._enqueue(tracker, lambda t=tracker: t.log_round(record))  # type: ignore[misc]

    def run_ended(self, outcome: str) -> None:
        """In which phase the run ended."""
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
        except Exception as error:  # a tracker's bug, too, is no reason for edges to stop learning
            self._record_failure(tracker, f"{type(error).__name__}: {error}")

    def _record_failure(self, tracker: Tracker, why: str) -> None:
        self.failures[tracker.name] += 1
        if self.failures[tracker.name] == 1:
            LOG.warning(
                "%s: %s; the run continues, and further failures are only counted", tracker.name, why[:300]
            )
