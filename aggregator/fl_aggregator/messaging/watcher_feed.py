"""Publishes what only watchers read: every edge's state, and the curves of the rounds so far.

Both are published as rarely as possible, since they are large: a megabyte for a fleet of 10,000 edges.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final

from fl_aggregator.messaging.outlet import Outlet
from fl_aggregator.monitoring.views import edge_states, history
from fl_aggregator.monitoring.views.history_row import columns_of
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.monitoring.views.similarity_map import similarity_map
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.phases import Evaluating, collected_round
from fl_aggregator.round.state import Run, Summary
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.protocol.limits import MAX_NAMES

MIN_HISTORY_INTERVAL: Final = 0.5
"""Seconds between two histories, at least."""
MIN_EDGES_INTERVAL: Final = 1.0
"""Seconds between two messages about the edges' states, at least."""
EDGES_PER_SECOND: Final = 1000
"""That interval grows by one second for each 1000 edges."""
EDGES_OVERHEAD: Final = 2**12
"""Bytes of a packet besides its payload; an upper bound."""


class ObserverFeed:
    """Publishes the history and the edges' states, retained.

    ``started`` is when the run began, in UTC. ``uploading`` returns the clients whose update is being
    received or checked.
    """

    def __init__(
        self,
        outlet: Outlet,
        scope: EnvelopeSource,
        started: str,
        uploading: Callable[[], Collection[str]],
    ) -> None:
        self._outlet = outlet
        self._scope = scope
        self._started = started
        self._uploading = uploading
        self._latest_updates: dict[str, edge_states.LatestUpdate] = {}
        self.history = history.RoundHistory()
        self._history_is_due = True
        self._history_at = self._edges_published_at = self._closed_published_at = self._checked_at = -1e9
        self._published: tuple[Run | None, Collection[str]] = (None, ())
        self._last_summary: Summary | None = None
        self._closed_is_due = False
        self._retained_rounds: set[int] = set()

    # --- what will be published ---------------------------------------------------------------------------

    def restore(self, rounds: Iterable[RoundRecord], updates: Iterable[UpdateMetadata]) -> None:
        """Takes over rounds and accepted updates from earlier incarnations."""
        for record in rounds:
            self.history.add(record)
        for update in updates:
            self.update_accepted(update)

    def update_accepted(self, update: UpdateMetadata) -> None:
        """Remembers an accepted update as the latest one of its edge."""
        self._latest_updates[update.client] = edge_states.LatestUpdate.of(update)

    def round_ended(self, summary: Summary, record: RoundRecord) -> None:
        """Adds a round that has ended, or was evaluated after its end."""
        if summary.round > 0:  # round 0 makes the initial weights, and has no line in the history
            self.history.add(record)
            self._history_is_due = True
        if self._last_summary is None or self._last_summary.round <= summary.round:
            self._closed_is_due |= self._last_summary is None or self._last_summary.round != summary.round
            self._last_summary = summary

    def bytes_of(self, number: int) -> tuple[int, int] | None:
        """Returns the bytes (up, down) of a round that ended in an earlier incarnation; null if unknown."""
        record = self.history.recent().get(number)
        return None if record is None else (record.bytes.up, record.bytes.down)

    # --- publishing ---------------------------------------------------------------------------------------

    def due(self, state: Run) -> float:
        """Returns when `publish_due` publishes something, if all stays as it is. The clock is ``time.monotonic``."""
        dues = [
            self._history_at + MIN_HISTORY_INTERVAL if self._history_is_due else math.inf,
            self._closed_published_at + self._interval(state) if self._closed_is_due else math.inf,
            self._edges_due(state) if self._have_edges_changed(state, self._uploading()) else math.inf,
        ]
        return min(dues)

    def _interval(self, state: Run) -> float:
        return MIN_EDGES_INTERVAL + len(state.roster.clients) / EDGES_PER_SECOND

    def _edges_due(self, state: Run) -> float:
        """Returns when it is time to see whether the edges have changed: not for each of a thousand messages."""
        return max(
            self._edges_published_at + self._interval(state), self._checked_at + MIN_EDGES_INTERVAL / 4
        )

    def _have_edges_changed(self, state: Run, uploading: Collection[str]) -> bool:
        return self._published[0] is not state or self._published[1] != uploading

    def publish_due(self, state: Run, *, force: bool = False) -> None:
        """Publishes what has changed, if its interval has passed, or at once with ``force``."""
        now = time.monotonic()
        if self._history_is_due and (force or now >= self._history_at + MIN_HISTORY_INTERVAL):
            self._history_at, self._history_is_due = now, False
            self._publish_history(state)
        if self._closed_is_due and (force or now >= self._closed_published_at + self._interval(state)):
            self._closed_published_at, self._closed_is_due = now, False
            self._publish_closed(state)
        if force or now >= self._edges_due(state):
            self._checked_at = now
            uploading = self._uploading()
            if force or self._have_edges_changed(state, uploading):
                self._published, self._edges_published_at = (state, uploading), now
                self._publish_edges(state, uploading)

    def _publish_history(self, state: Run) -> None:
        settings = state.settings
        message = m.History(
            **self._scope.envelope(),
            task=settings.task,
            rounds=settings.rounds,
            started=self._started,
            metrics=state.declared,
            columns=columns_of(self.history.rows()),
            similarity=similarity_map(self.history.compared),
        )
        self._outlet.retain(t.HistoryTopic(), message, counted=False)

    def _publish_edges(self, state: Run, uploading: Collection[str]) -> None:
        number = getattr(state.phase, "round", None)
        collected = collected_round(state.phase)
        if collected is not None:
            number = collected.round
        if number is None or isinstance(state.phase, Evaluating):  # no other round is open
            self._publish_closed(state)
            return
        self._publish(state, number, edge_states.open_round_views(state, uploading, self._latest_updates))

    def _publish_closed(self, state: Run) -> None:
        closed = self._last_summary
        if closed is None:
            self._publish(state, 0, edge_states.open_round_views(state, (), self._latest_updates))
        else:
            self._publish(
                state, closed.round, edge_states.closed_round_views(state, closed, self._latest_updates)
            )

    def _publish(self, state: Run, number: int, edges: dict[str, m.EdgeView]) -> None:
        envelope, phase = self._scope.envelope(), state.phase.name
        limit = min(MAX_NAMES, self._outlet.maximum_packet_size) - EDGES_OVERHEAD

        def made(included: dict[str, m.EdgeView]) -> m.Edges:
            return m.Edges(
                **envelope,
                round=number,
                phase=phase,
                edges=included,
                left_out=len(edges) - len(included),
                environments=state.environments,
                personal=edge_states.personal_scores_of(state, included),
            )

        message = made(edges)
        while message.edges and (size := len(codec.encode(message))) > limit:
            message = made(edge_states.select_views(edges, int(0.9 * len(message.edges) * limit / size)))
        self._outlet.retain(t.EdgesTopic(number), message, counted=False)
        self._retained_rounds.add(number)
        still_retained = {number, -1 if self._last_summary is None else self._last_summary.round}
        for obsolete in self._retained_rounds - still_retained:
            self._outlet.clear(t.EdgesTopic(obsolete))
        self._retained_rounds &= still_retained
