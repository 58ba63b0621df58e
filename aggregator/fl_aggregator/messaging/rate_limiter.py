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

    ``client`` is the name in the topic, or null if all unknown clients together exceeded the limit. ``notify``:
    whether the client should be told now.
    """

    client: str | None
    exceeded: LimitExceeded
    count: int
    notify: bool


class RateLimiter:
    """Admits or drops messages, by the limits of their channel. Safe on any thread.

    The edges' own topics have limits, as ``channels`` says, and so has what is no topic of the protocol. ``roster``
    returns the newest roster, which is never changed in place. ``on_dropped`` is called for the first message that is
    dropped after `pop_throttled`. ``clock`` must not stop in a pause of the run, since edges then repeat unanswered
    messages.
    """

    def __init__(
        self,
        prefix: str,
        clients: int,
        roster_limit: int,
        roster: Callable[[], Roster],
        clock: Callable[[], float] = time.monotonic,
        channels: Channels = CHANNELS,
        on_dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._prefix = prefix
        self._channels = channels
        self._clients = clients
        self._roster = roster
        self._on_dropped = on_dropped
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
        client, kind, known = limit_key
        if received.retain:
            # Retained presence of unknown clients is dropped: there can be any number of them.
            return None if kind == "presence" and not known else arrival
        with self._lock:
            exceeded = self._limits.charge(client, kind, received.size, self._clock(), known=known)
            if exceeded is None:
                return arrival
            is_first = not self._throttled
            self._throttled[None if exceeded.shared else client, exceeded] += 1
        if is_first:
            self._on_dropped()
        return None

    def _limit_key(self, topic: t.Topic | None) -> tuple[str | None, Limit, bool] | None:
        """Returns the client that a topic names, the limit that applies, and whether the client is known.

        Null without a limit. Known are the clients of the roster, and those whose partition follows from their
        id: their number is bounded.
        """
        kind = "other" if topic is None else self._channels.of(topic).limit
        if kind is None:
            return None
        client: str | None = getattr(topic, "client", None)
        return client, kind, client is not None and self._is_known(client)

    def _is_known(self, client: str) -> bool:
        return client in self._roster() or default_partition(client, self._clients) is not None

    def give_back(self, arrival: AdmittedMessage) -> None:
        """Undoes the charge of a message that the aggregator has asked for."""
        limit_key = self._limit_key(arrival.topic)
        if limit_key is not None:
            client, _, known = limit_key
            with self._lock:
                self._limits.give_back(client, arrival.received.size, self._clock(), known=known)

    def charge_work(self, arrival: AdmittedMessage, seconds: float) -> None:
        """Charges the sender of a message for the CPU time that decoding it, or opening it in vain, took."""
        limit_key = self._limit_key(arrival.topic)
        if limit_key is not None:
            client, _, known = limit_key
            with self._lock:
                self._limits.charge_work(client, seconds, self._clock(), known=known)

    def refill(self, clients: Iterable[str]) -> None:
        """Lets clients send a full burst again, because they are asked for updates."""
        with self._lock:
            self._limits.refill(clients)

    @property
    def has_throttled(self) -> bool:
        """Whether anything was dropped since `pop_throttled` was last called."""
        return bool(self._throttled)

    def pop_throttled(self) -> list[Throttled]:
        """Returns what was dropped since the last call."""
        now = self._clock()
        with self._lock:
            throttled, self._throttled = self._throttled, Counter()
            return [
                Throttled(
                    client,
                    exceeded,
                    count,
                    self._should_notify(client, now),
                )
                for (client, exceeded), count in throttled.items()
            ]

    def _should_notify(self, client: str | None, now: float) -> bool:
        return client is not None and client in self._roster() and self._limits.should_notify(client, now)
