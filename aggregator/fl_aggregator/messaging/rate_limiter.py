"""The rate limiter before the inbox: it drops messages that exceed the limits of their sender.

It is called on the network's thread, so that a flood neither fills the inbox nor takes the loop's time. A few
times a second, the loop asks what was dropped.
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
    """A number of messages that one client sent in excess of one limit.

    ``client`` is null for all unknown clients together. ``notify``: whether the client should be told now.
    """

    client: str | None
    exceeded: LimitExceeded
    count: int
    notify: bool


class RateLimiter:
    """Admits or drops messages, by the limits of their channel. Safe on any thread.

    The edges' own topics have limits, as ``channels`` says, and so has what is no topic of the protocol. ``roster``
    returns the newest roster, which is never changed in place. ``clock`` must not stop in a pause of the run, since
    edges then repeat unanswered messages.
    """

    def __init__(
        self,
        prefix: str,
        clients: int,
        roster_limit: int,
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
        self._limits = RateLimits(clients, roster_limit, clock())
        self._throttled: Counter[tuple[str | None, LimitExceeded]] = Counter()

    def admit(self, received: mqtt.Received) -> AdmittedMessage | None:
        """Returns a message with its parsed topic, or null if it is dropped.

        Called on the network's thread.
        """
        arrival = AdmittedMessage(self._channels.parse(self._prefix, received.topic), received)
        limit_key = self._limit_key(arrival.topic)
        if limit_key is None:
            return arrival
        client, kind = limit_key
        if received.retain:
            # Retained presence of unknown clients is dropped: there can be any number of them.
            return None if kind == "presence" and client is None else arrival
        with self._lock:
            exceeded = self._limits.charge(client, kind, received.size, self._clock())
            if exceeded is None:
                return arrival
            self._throttled[client, exceeded] += 1
            return None

    def _limit_key(self, topic: t.Topic | None) -> tuple[str | None, Limit] | None:
        """Returns the client (null if unknown) and the limit that apply to a topic; null without a limit.

        Known are the clients of the roster, and those whose partition follows from their id: their number is
        bounded.
        """
        kind = "other" if topic is None else self._channels.of(topic).limit
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
        """Undoes the charge of a message that the aggregator has asked for."""
        limit_key = self._limit_key(arrival.topic)
        if limit_key is not None:
            with self._lock:
                self._limits.give_back(limit_key[0], arrival.received.size)

    def charge_work(self, arrival: AdmittedMessage, seconds: float) -> None:
        """Charges the sender of a message for the CPU time that decoding it took."""
        limit_key = self._limit_key(arrival.topic)
        if limit_key is not None:
            with self._lock:
                self._limits.charge_work(limit_key[0], seconds)

    def refill(self, clients: Iterable[str]) -> None:
        """Lets clients send a full burst again, because they are asked for updates."""
        with self._lock:
            self._limits.refill(clients)

    def pop_throttled(self) -> list[Throttled]:
        """Returns what was dropped since the last call."""
        now = self._clock()
        with self._lock:
            throttled, self._throttled = self._throttled, Counter()
            return [
                Throttled(
                    client, exceeded, count, client is not None and self._limits.should_notify(client, now)
                )
                for (client, exceeded), count in throttled.items()
            ]
