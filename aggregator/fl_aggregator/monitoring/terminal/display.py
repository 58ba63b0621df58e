"""Shows the run of this process to a person: as a live view on a terminal, elsewhere as lines in the log."""

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
from fl_aggregator.monitoring.views.history_row import summary_fields
from fl_aggregator.monitoring.views.notices import WaitingNotices, absence_text, waiting_text
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round import effects as do
from fl_aggregator.round.state import Run
from fl_aggregator.storage.run_directory import RunRecord
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.protocol.messages import environment_counts
from fl_shared.system.text import names_text, natural_order

LOG: Final = logging.getLogger(__name__)

SNAPSHOT_INTERVAL: Final = 0.25
"""Seconds between two snapshots of the live view, at least."""
MAX_NAMED_IN_COHORT: Final = 20


class RunSource(Protocol):
    """The facts about a run that are not in its state, and that an observer reads from the aggregator."""

    @property
    def history(self) -> RoundHistory:
        """The rounds that have ended."""

    @property
    def pause_reason(self) -> str | None:
        """Why the run is paused; null if it is not."""

    @property
    def record(self) -> RunRecord:
        """What ``run.json`` says of it."""

    def uploading(self) -> Collection[str]:
        """The edges whose updates are arriving."""


class Display:
    """Shows the run named ``run`` while it goes on: on the terminal ``console`` if ``live``, else in a log.

    ``hint``: a line that is logged once, at the first `observe`.
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
        self._has_begun = False

    def set_source(self, source: RunSource) -> None:
        """Sets where further facts come from. Must be called before the first `observe`."""
        self._source = source

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
            _log_to_standard_error()  # the live view has replaced it, and shows log lines above itself
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Removes the live view from the terminal. May be called more than once."""
        if self._live is not None:
            self._live.stop()
            _log_to_standard_error()

    def observe(self, state: Run, effects: tuple[do.Effect, ...], now: float) -> float:
        """Shows the state after a step and what the step's effects tell. Called on the loop's thread.

        ``now``: run time in seconds. Returns when it must be called again, though nothing happens; ∞ for never.
        """
        if self._hint:
            LOG.info("%s", self._hint)
            self._hint = ""
        if state.begun and not self._has_begun:
            self._has_begun = True
            if absence := absence_text(state):
                LOG.warning("the run goes on without all edges: %s", absence)
        if declined := self.waiting_notices.observe_declined(state, now):
            LOG.warning("%s", declined)
        waiting_line = self.waiting_notices.observe(state, effects, now)
        if self._live is not None:
            if state.ended or time.monotonic() - self._snapshot_at >= SNAPSHOT_INTERVAL:
                self._snapshot_at = time.monotonic()
                self._snapshot = self._take_snapshot(state, now)
            return now + SNAPSHOT_INTERVAL
        for effect in effects:
            if isinstance(effect, do.WriteHistory):
                self._log_round(effect, state)
            elif isinstance(effect, do.AnnounceRound):
                names = names_text(natural_order(effect.cohort), MAX_NAMED_IN_COHORT)
                line = (
                    f"edge {names} will create the initial weights"
                    if effect.base is None
                    else f"selected {names}"
                )
                versions = [evaluation.model.version for evaluation in state.evaluations]
                meanwhile = f"; version {versions[-1]} is evaluated meanwhile" if versions else ""
                LOG.info("round %d: %s%s", effect.round, line, meanwhile)
        if waiting_line is not None:
            LOG.info("%s", waiting_line)
        return self.waiting_notices.due

    def _log_round(self, effect: do.WriteHistory, state: Run) -> None:
        assert self._source is not None
        summary = effect.summary
        record = self._source.history.recent().get(summary.round) or RoundRecord.of(summary, 0, 0)
        fields = {"round": summary_fields(record)}
        absence = absence_text(state)
        line = round_line(record, state.settings.rounds) + (f"; {absence}" if absence else "")
        LOG.info("%s", line, extra={"facts": fields})

    def _take_snapshot(self, state: Run, now: float) -> Snapshot:
        assert self._source is not None
        history = self._source.history
        return Snapshot(
            status=views.status_message(state, self._scope, now, record=self._source.record),
            rows=history.rows(),
            recent=history.recent(),
            edge_counts=EdgeCounts.of(
                edge_states.edge_states_of(state, self._source.uploading()),
                getattr(state.phase, "round", None),
                environment_counts(
                    state.environments, (client.environment for client in state.roster.clients.values())
                ),
            ),
            waiting_text=waiting_text(state),
        )

    def _render(self) -> View:
        """Draws the newest snapshot, on the live view's thread.

        While the run is paused, `observe` is not called, so that the reason for the pause is read here.
        """
        snapshot, source = self._snapshot, self._source
        if snapshot is not None and source is not None and source.pause_reason is not None:
            status = snapshot.status.model_copy(update={"paused": source.pause_reason})
            snapshot = Snapshot(
                status, snapshot.rows, snapshot.recent, snapshot.edge_counts, snapshot.waiting_text
            )
        return View(snapshot)


def _log_to_standard_error() -> None:
    """Makes log handlers write to the present ``sys.stderr``, which the live view replaces and restores."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
