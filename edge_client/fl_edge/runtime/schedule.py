"""What the loop is to do when, though nothing arrives: for its sessions, its downloads, and what is not urgent."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Any, Final

from fl_edge.messaging.model_store import ModelStore
from fl_edge.runtime.edge import Edge
from fl_edge.runtime.heartbeat import Heartbeat
from fl_edge.runtime.inbox import Inbox
from fl_edge.runtime.notices import ConnectionNotices
from fl_edge.runtime.predictors import Predictors
from fl_edge.runtime.registration_window import RegistrationWindow
from fl_edge.runtime.remote_log import RemoteLog
from fl_edge.session import machine
from fl_edge.session.state import Registering

CHORE_INTERVAL: Final = 1.0
"""Seconds between two times at which the loop does what is not urgent, at least."""
CHECK_INTERVAL: Final = 5.0
"""Seconds after which the loop looks whether another thread has failed, at the latest."""


class Schedule:
    """The timers of sessions, and when the other parts of a fleet have something to do. Times are in seconds.

    The timer of a session that has passed waits until all is handled that had arrived by then: to repeat a message
    whose answer is in the inbox would only make a busy fleet busier. An edge whose registration waits for its turn has
    nothing to repeat.
    """

    def __init__(
        self,
        store: ModelStore,
        notices: ConnectionNotices,
        predictors: Predictors,
        registrations: RegistrationWindow,
        inbox: Inbox[Any],
        heartbeat: Heartbeat | None,
        remote_log: RemoteLog | None,
        now: float,
    ) -> None:
        self._store = store
        self._notices = notices
        self._predictors = predictors
        self._registrations = registrations
        self._inbox = inbox
        self._heartbeat = heartbeat
        self._remote_log = remote_log
        self._timers: list[tuple[float, int, Edge]] = []
        self._order = itertools.count()
        self._chores_at = now + CHORE_INTERVAL
        self._read_until = self._marked_at = now
        """All is handled that had arrived until the first. Of what had until the second, ``unread`` are left."""
        self._unread = 0

    def set(self, edge: Edge, now: float) -> None:
        """Sets the timer of a session that has taken an event."""
        due = machine.due(edge.state)
        if due is not None and due != edge.scheduled:
            heapq.heappush(self._timers, (due, next(self._order), edge))
        edge.scheduled = due
        is_unanswered = (
            isinstance(edge.state, machine.Session)
            and isinstance(edge.state.registration, Registering)
            and not self._registrations.is_queued(edge)
        )
        edge.unanswered_since = (edge.unanswered_since or now) if is_unanswered else None

    def item_handled(self) -> None:
        """Notes that an item of the inbox was handled."""
        self._unread -= 1

    def pop_due(self, now: float) -> Iterator[Edge]:
        """Yields the edges whose session has something to do, and takes their timers out."""
        self._note_read(now)
        while self._timers and self._timers[0][0] <= self._read_until:
            due, _, edge = heapq.heappop(self._timers)
            if edge.scheduled == due:
                edge.scheduled = None
                if not self._registrations.is_queued(edge):
                    yield edge

    def pop_chores(self, now: float) -> bool:
        """Returns whether to do what is not urgent, which then counts as done."""
        if now < self._chores_at:
            return False
        self._chores_at = now + CHORE_INTERVAL
        return True

    def seconds_until_due(self, now: float) -> float:
        """Returns how long the loop may wait for an item, since nothing else is to be done until then."""
        store_due = self._store.due()
        dues = [max(self._chores_at, self._chores_due(now)), now + CHECK_INTERVAL]
        dues += [self._timers[0][0]] if self._timers else []
        dues += [store_due] if store_due is not None else []
        return max(0.0, min(dues) - now)

    def _chores_due(self, now: float) -> float:
        dues = [self._notices.due(), self._predictors.due]
        dues += [now] if self._inbox.has_dropped else []
        dues += [] if self._remote_log is None else [self._remote_log.due]
        if self._heartbeat is not None and self._notices.has_broker:
            dues.append(self._heartbeat.due)
        return min(dues)

    def _note_read(self, now: float) -> None:
        """Notes until when all is handled that has arrived. Timers pass in a flood, too."""
        waiting = self._inbox.waiting
        if waiting == 0:
            self._read_until = self._marked_at = now
            self._unread = 0
        elif self._unread <= 0:
            self._read_until, self._marked_at, self._unread = self._marked_at, now, waiting
