"""What a person at the terminal sees of the run of this process: a live view, or lines in the log elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Collection
from types import TracebackType
from typing import Final, Protocol, Self

from rich.console import Console
from rich.live import Live

from fl_aggregator.monitoring.terminal.render import View
from fl_aggregator.monitoring.terminal.snapshot import EdgeCounts, Snapshot
from fl_aggregator.monitoring.terminal.text import round_line
from fl_aggregator.monitoring.views import edge_states
from fl_aggregator.monitoring.views import status as views
from fl_aggregator.monitoring.views.history import RoundHistory
from fl_aggregator.monitoring.views.notices import WaitingNotices, waiting_text
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round import effects as do
from fl_aggregator.round.state import Run
from fl_shared.protocol.envelope import EnvelopeSource

LOG: Final = logging.getLogger(__name__)

SNAPSHOT_INTERVAL: Final = 0.25
"""Seconds between two pictures of the live view."""
MAX_NAMED_IN_COHORT: Final = 20


class RunSource(Protocol):
    """What an observer may ask the aggregator for, beside the state that it is shown."""

    @property
    def history(self) -> RoundHistory: ...

    @property
    def pause_reason(self) -> str | None: ...

    def uploading(self) -> Collection[str]: ...


class Display:
    """Shows ``run`` as it goes; ``live``: on ``console``, which is a terminal. Its ``observe`` is an observer.

    ``hint``: said once, when the run has begun.
    """

    def __init__(self, console: Console, run: str, *, live: bool, hint: str = "") -> None:
        self._hint = hint
        self._scope = EnvelopeSource(run=run, incarnation=1)
        self._source: RunSource | None = None
        self._snapshot: Snapshot | None = None
        self._snapshot_at = 0.0
        self._live = (
            Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)
            if live
            else None
        )
        self.waiting_notices = WaitingNotices()

    def set_source(self, source: RunSource) -> None:
        """Before the first `observe`."""
        self._source = source

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
            _log_to_standard_error()  # which is the live view's now: a log line appears above it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Takes the live view away; stopping twice is fine."""
        if self._live is not None:
            self._live.stop()
            _log_to_standard_error()

    def observe(self, state: Run, effects: tuple[do.Effect, ...], now: float) -> None:
        """``now``: run time in seconds."""
        if self._hint:
            LOG.info("%s", self._hint)
            self._hint = ""
        said_of_waiting = self.waiting_notices.observe(state, effects, now)
        if self._live is not None:
            if state.ended or time.monotonic() - self._snapshot_at >= SNAPSHOT_INTERVAL:
                self._snapshot_at = time.monotonic()
                self._snapshot = self._take_snapshot(state, now)
            return
        for effect in effects:
            if isinstance(effect, do.WriteHistory):
                self._log_round(effect, state)
            elif isinstance(effect, do.AnnounceRound):
                names = ", ".join(effect.cohort[:MAX_NAMED_IN_COHORT])
                more = (
                    f" and {len(effect.cohort) - MAX_NAMED_IN_COHORT} more"
                    if len(effect.cohort) > MAX_NAMED_IN_COHORT
                    else ""
                )
                what = "will create the initial weights" if effect.base is None else "selected"
                said = f"edge {names} {what}" if effect.base is None else f"{what} {names}{more}"
                LOG.info("round %d: %s", effect.round, said)
        if said_of_waiting is not None:
            LOG.info("%s", said_of_waiting)

    def _log_round(self, effect: do.WriteHistory, state: Run) -> None:
        assert self._source is not None
        summary = effect.summary
        record = self._source.history.recent().get(summary.round) or RoundRecord.of(summary, 0, 0)
        facts = {"round": record.summary_fields()}
        LOG.info("%s", round_line(record, state.settings.rounds), extra={"facts": facts})

    def _take_snapshot(self, state: Run, now: float) -> Snapshot:
        assert self._source is not None
        curves = self._source.history
        return Snapshot(
            status=views.status_message(state, self._scope, now),
            rows=curves.rows(),
            recent=curves.recent(),
            edge_counts=EdgeCounts.of(
                edge_states.edge_states_of(state, self._source.uploading()),
                getattr(state.phase, "round", None),
            ),
            waiting_text=waiting_text(state),
        )

    def _render(self) -> View:
        """On the live view's thread. In a pause nothing is observed, so it is asked for."""
        picture, source = self._snapshot, self._source
        if picture is not None and source is not None and source.pause_reason is not None:
            status = picture.status.model_copy(update={"paused": source.pause_reason})
            picture = Snapshot(
                status, picture.rows, picture.recent, picture.edge_counts, picture.waiting_text
            )
        return View(picture)


def _log_to_standard_error() -> None:
    """Whatever standard error is at the moment."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
