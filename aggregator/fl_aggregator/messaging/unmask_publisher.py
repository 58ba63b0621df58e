"""Publishes what the members of a masked round are asked for after it has closed, on the topic of each."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from fl_aggregator.messaging.outlet import Outlet
from fl_aggregator.messaging.publisher import FIRST_REPEAT_DELAY, MAX_REPEAT_INTERVAL
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import EnvelopeSource
from fl_shared.system.backoff import backoff


class UnmaskPublisher:
    """Keeps a request retained for each member, and publishes it again now and then. Times are run time."""

    def __init__(self, outlet: Outlet, scope: EnvelopeSource) -> None:
        self._outlet = outlet
        self._scope = scope
        self._requests: Mapping[str, m.Closing | m.Reveal] = {}
        self._asked_at = self._repeat_at = 0.0
        self._repeats = 0

    def ask(self, requests: Mapping[str, m.Closing | m.Reveal], now: float) -> None:
        """Publishes a request to each member, in the place of the one before."""
        self._requests, self._asked_at, self._repeats = requests, now, 0
        self._repeat_at = now + FIRST_REPEAT_DELAY
        for client, request in requests.items():
            self._outlet.retain(t.UnmaskTopic(client), request)

    def due(self) -> float:
        """Returns the run time at which requests are to be repeated; ∞ if there are none."""
        return self._repeat_at if self._requests else math.inf

    def repeat(self, awaited: Collection[str], now: float) -> None:
        """Publishes the requests of the members ``awaited`` again, if that is `due`: a broker may have dropped one."""
        if now < self.due():
            return
        self._repeats += 1
        self._repeat_at = now + backoff(self._repeats, FIRST_REPEAT_DELAY, MAX_REPEAT_INTERVAL)
        for client in awaited:
            if client in self._requests:
                self._outlet.retain(t.UnmaskTopic(client), self._again(client, now))

    def repeat_to(self, client: str, now: float) -> None:
        """Sends its request to a member that has registered: some brokers have not kept it."""
        if client in self._requests:
            self._outlet.send(t.UnmaskTopic(client), self._again(client, now))

    def _again(self, client: str, now: float) -> m.Closing | m.Reveal:
        request = self._requests[client]
        left = max(0.0, request.seconds_left - (now - self._asked_at))
        return request.model_copy(update={**self._scope.envelope(), "seconds_left": left})

    def end(self) -> None:
        """Clears all requests."""
        for client in self._requests:
            self._outlet.clear(t.UnmaskTopic(client))
        self._requests = {}
