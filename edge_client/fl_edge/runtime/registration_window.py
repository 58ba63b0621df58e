"""Bounds how many registrations of a fleet are unanswered at once.

The aggregator answers them one by one. If ten thousand edges registered together, most would repeat what they have sent
before it was read, and the aggregator would have ever more to answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from fl_edge.runtime.edge import Edge
from fl_edge.session.effects import Send
from fl_edge.session.state import Session
from fl_edge.session.work import Idle

MAX_UNANSWERED: Final = 128
"""Registrations that may be unanswered at once: an aggregator answers so many before an edge repeats its own."""
LEAST_UNANSWERED: Final = 32
"""So many may be in any case. A repetition halves the number, as the aggregator is slower; an answer adds one."""


class RegistrationWindow:
    """The registrations of a fleet that are not answered, and those that wait for their turn.

    ``start_waiting`` is called when a registration that has waited is about to be sent.
    """

    def __init__(self, start_waiting: Callable[[Edge], None], most: int = MAX_UNANSWERED) -> None:
        self._start_waiting = start_waiting
        self._most = self._window = most
        self._unanswered: set[str] = set()
        self._queue: OrderedDict[str, tuple[Edge, Send]] = OrderedDict()

    def put(self, edge: Edge, registration: Send) -> None:
        """Sends a registration, or queues it: first those of edges at work, for which a resumed round waits.

        One that is repeated goes behind all others, so that edges that are never answered do not keep them from their
        turn.
        """
        is_repeated = edge.client in self._unanswered
        if is_repeated:
            self._unanswered.discard(edge.client)
            self._window = min(self._most, max(LEAST_UNANSWERED, self._window // 2))
        if not self._queue and len(self._unanswered) < self._window:
            self._send(edge, registration)
        else:
            self._queue[edge.client] = edge, registration
            if _is_at_work(edge) and not is_repeated:
                self._queue.move_to_end(edge.client, last=False)
            self._send_next()

    def is_queued(self, edge: Edge) -> bool:
        """Whether a registration of this edge has not been sent yet."""
        return edge.client in self._queue

    def settle(self, edge: Edge) -> None:
        """Must be called when an edge has been answered, or can be no more."""
        if edge.client in self._unanswered or edge.client in self._queue:
            self._window = min(self._most, self._window + (edge.client in self._unanswered))
            self._unanswered.discard(edge.client)
            self._queue.pop(edge.client, None)
            self._send_next()

    def _send_next(self) -> None:
        while self._queue and len(self._unanswered) < self._window:
            _, (edge, registration) = self._queue.popitem(last=False)
            self._start_waiting(edge)
            self._send(edge, registration)

    def _send(self, edge: Edge, registration: Send) -> None:
        assert edge.connection is not None
        self._unanswered.add(edge.client)
        edge.connection.send(registration.topic, registration.message, retain=False)


def _is_at_work(edge: Edge) -> bool:
    return isinstance(edge.state, Session) and not isinstance(edge.state.work, Idle)
