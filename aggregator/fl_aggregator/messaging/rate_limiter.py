"""The gate before the inbox: what is more than its sender may say goes no further, whatever else waits.

The network's thread asks it, so that a flood neither fills the inbox nor takes the loop's time; the loop is told of
what was turned away, a few times a second.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fl_aggregator.messaging.inbox import AdmittedMessage
from fl_aggregator.messaging.rate_limits import LimitExceeded, RateLimits
from fl_aggregator.round.roster import Roster, default_partition
from fl_shared.mqtt import events as mqtt
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS, Channels, Limit


@dataclass(frozen=True, slots=True)
class Throttled:
    """Of ``client`` (null: of who is not known) so many messages; ``tell``: it is to hear of it."""

    client: str | None
    exceeded: LimitExceeded
    count: int
    notify: bool


class RateLimiter:
    """``channels`` says what is limited: edges' own topics. Whatever comes on the others is read.

    ``roster`` gives the newest one, which is never changed in place. ``clock`` goes on in a pause of the run: edges
    repeat then what is not answered.
    """

    def __init__(
        self,
        prefix: str,
        clients: int,
        known_at_most: int,
        roster: Callable[[], Roster],
        clock: Callable[[], float] = time.monotonic,
        channels: Channels = CHANNELS,
    ) -> None:
        self._prefix = prefix
        self._channels = channels
        self._clients = clients
        self._roster = roster
        self._clock = clock
        self._lock = threading.Lock()
        self._limits = RateLimits(clients, known_at_most, clock())
        self._throttled: Counter[tuple[str | None, LimitExceeded]] = Counter()

    def admit(self, received: mqtt.Received) -> AdmittedMessage | None:
        """A message with its parsed topic; null if it is not to be read. For the network's thread."""
        arrival = AdmittedMessage(self._channels.parse(self._prefix, received.topic), received)
        found = self._limit_key(arrival.topic)
        if found is None:
            return arrival
        client, kind = found
        if received.retain:
            # Retained presence of unknown clients is dropped: there can be any number of them.
            return None if kind == "presence" and client is None else arrival
        with self._lock:
            exceeded = self._limits.charge(client, kind, len(received.payload), self._clock())
            if exceeded is None:
                return arrival
            self._throttled[client, exceeded] += 1
            return None

    def _limit_key(self, topic: t.Topic | None) -> tuple[str | None, Limit] | None:
        """The client (null if unknown) and kind under which a message is limited; null if it is not.

        Clients of the roster are known, and those whose partition follows from their name: their number is bounded.
        """
        kind = None if topic is None else self._channels.of(topic).limit
        if kind is None:
            return None
        client: str | None = getattr(topic, "client", None)
        if (
            client is not None
            and client not in self._roster()
            and default_partition(client, self._clients) is None
        ):
            client = None
        return client, kind

    def give_back(self, arrival: AdmittedMessage) -> None:
        """It was asked for, and costs its sender nothing."""
        found = self._limit_key(arrival.topic)
        if found is not None:
            with self._lock:
                self._limits.give_back(found[0], len(arrival.received.payload))

    def refill(self, clients: Iterable[str]) -> None:
        """These are asked to speak."""
        with self._lock:
            self._limits.refill(clients)

    def pop_throttled(self) -> list[Throttled]:
        """What was turned away since this was asked before."""
        now = self._clock()
        with self._lock:
            found, self._throttled = self._throttled, Counter()
            return [
                Throttled(
                    client, exceeded, times, client is not None and self._limits.should_notify(client, now)
                )
                for (client, exceeded), times in found.items()
            ]
