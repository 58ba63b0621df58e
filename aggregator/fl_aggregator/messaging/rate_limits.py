"""How much each client may send before its messages are dropped unread. PURE: it is told the time.

Each known client has limits of its own, so that one cannot use up another's. So has each newcomer, which are
narrower, since names can be made up where a broker has no accounts; all newcomers together share another set.
Messages that were asked for cost nothing: granted chunks are given back, and a selected edge begins with a
full burst. So only messages that were not asked for count, and an honest edge never reaches a limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, assert_never

from fl_shared.protocol.channels import Limit
from fl_shared.protocol.messages import LimitReason
from fl_shared.system.flood_control import Interval, RecentlyUsed
from fl_shared.system.token_bucket import Rate, TokenBucket

CLIENT_MESSAGE_RATE: Final = Rate(50, 500)
"""Of one client: updates, offers, chunks that were not granted, evaluations."""
CLIENT_BYTE_RATE: Final = Rate(32 * 2**20, 128 * 2**20)
"""Of one client: the bytes of all its messages. The burst is more than the largest packet."""
CLIENT_REGISTRATION_RATE: Final = Rate(0.2, 60)
"""Of one client: registrations. It sends two for each connection, and repeats them in growing intervals while
they are not answered. Each may add a line to the journal, and so may the will of its session."""
CLIENT_PRESENCE_RATE: Final = Rate(5, 100)
"""Of one client: births and wills."""
CLIENT_WORK_RATE: Final = Rate(0.1, 2.0)
"""Of one client: seconds of CPU time in which its messages are decoded, or found to be sealed wrongly. An honest
message takes less than a millisecond, except first weights of thousands of arrays."""
UNKNOWN_WORK_RATE: Final = 0.25
"""Such seconds per second of all unknown clients together."""
WORK_OF_NEW_CLIENT: Final = 0.002
"""Such seconds at once, in addition, for each of ``--clients``."""
UNKNOWN_MESSAGE_RATE: Final = Rate(200, 2000)
"""Of all clients together that are not known, or that their topic does not name."""
UNKNOWN_BYTE_RATE: Final = Rate(64 * 2**20, 256 * 2**20)
"""Of the same clients: the bytes of all their messages."""
NEWCOMER_REGISTRATION_RATE: Final = Rate(0.1, 30)
"""Of one client that is not known yet: registrations. It repeats them in intervals that grow to 30 s."""
NEWCOMER_PRESENCE_RATE: Final = Rate(0.2, 30)
"""Of the same client: births and wills."""
NEWCOMER_MESSAGE_RATE: Final = Rate(1, 50)
"""Of the same client: messages that only a registered one has reason to send."""
NEWCOMER_BYTE_RATE: Final = Rate(2**18, 32 * 2**20)
"""Of the same client: the bytes of all its messages. The burst is more than the largest packet."""
NEWCOMER_WORK_RATE: Final = Rate(0.005, 0.5)
"""Of the same client: seconds of CPU time in which its messages are decoded."""
NEW_CLIENT_RATE: Final = 5.0
"""Registrations per second, in the long run, of unknown clients together; each may add a line to the
journal."""
NEW_CLIENT_BURST: Final = 1000
"""Such registrations at once, in addition to twice ``--clients``."""
LIMIT_NOTICE_INTERVAL: Final = 10.0
"""Seconds between two replies that tell a client about its limits."""


@dataclass(frozen=True, slots=True)
class Rates:
    """The limits of one client, or of all unknown ones together."""

    messages: Rate
    bytes: Rate
    registrations: Rate
    presences: Rate
    work: Rate


CLIENT_RATES: Final = Rates(
    CLIENT_MESSAGE_RATE, CLIENT_BYTE_RATE, CLIENT_REGISTRATION_RATE, CLIENT_PRESENCE_RATE, CLIENT_WORK_RATE
)
NEWCOMER_RATES: Final = Rates(
    NEWCOMER_MESSAGE_RATE,
    NEWCOMER_BYTE_RATE,
    NEWCOMER_REGISTRATION_RATE,
    NEWCOMER_PRESENCE_RATE,
    NEWCOMER_WORK_RATE,
)


class ClientLimits:
    """What one client, or all unknown ones together, may still send."""

    __slots__ = ("_bytes", "_messages", "_presences", "_registrations", "_telling", "_work")

    def __init__(self, rates: Rates, now: float) -> None:
        self._messages = TokenBucket(rates.messages, now)
        self._bytes = TokenBucket(rates.bytes, now)
        self._registrations = TokenBucket(rates.registrations, now)
        self._presences = TokenBucket(rates.presences, now)
        self._work = TokenBucket(rates.work, now)
        self._telling = Interval(LIMIT_NOTICE_INTERVAL)

    def charge(self, kind: Limit, size: int, now: float) -> LimitExceeded | None:
        """Charges one message of ``size`` bytes; returns the limit that it exceeds, or null."""
        bucket, reason = self._bucket_of(kind)
        if not bucket.take(1, now):
            return LimitExceeded(reason, bucket.rate)
        if not self._bytes.take(size, now):
            return LimitExceeded("too-many-bytes", self._bytes.rate)
        if not self._work.take(0, now):
            return LimitExceeded("too-much-work", self._work.rate)
        return None

    def charge_work(self, seconds: float) -> None:
        """Charges the time that a message took, once it is known."""
        self._work.spend(seconds)

    def _bucket_of(self, kind: Limit) -> tuple[TokenBucket, LimitReason]:
        match kind:
            case "registration":
                return self._registrations, "too-many-registrations"
            case "presence":
                return self._presences, "too-many-presences"
            case "other":
                return self._messages, "too-many-messages"
            case _:
                assert_never(kind)

    def give_back(self, size: int) -> None:
        """Undoes the charge of one message of ``size`` bytes."""
        self._messages.give_back(1)
        self._bytes.give_back(size)

    def refill(self) -> None:
        """Restores the full burst of messages and bytes, but not of registrations and presences."""
        self._messages.refill()
        self._bytes.refill()

    def should_notify(self, now: float) -> bool:
        """Whether a notice about limits is due; then it counts as sent."""
        return self._telling.is_due(now)


@dataclass(frozen=True, slots=True)
class LimitExceeded:
    """A limit that a message exceeds; as text, it says what was expected.

    ``shared``: whether it is that of all unknown clients together.
    """

    reason: LimitReason
    rate: Rate
    shared: bool = False

    def __str__(self) -> str:
        work = "seconds of decoding"
        quantity = work if self.reason == "too-much-work" else self.reason.removeprefix("too-many-")
        limit = f"{self.rate.per_second:.15g} per second, and {self.rate.burst:.15g} at once"
        return f"{quantity}: expected at most {limit}"


class RateLimits:
    """The limits of all clients.

    Times are seconds on a clock that only grows. The number of clients with limits of their own, and that of
    newcomers, are each bounded by the size of the roster plus ``clients``; beyond that, the least recently used
    limits are forgotten, and that client begins anew. ``client`` is null for a message whose topic names nobody,
    ``known`` is false for a newcomer.
    """

    def __init__(self, clients: int, roster_limit: int, now: float) -> None:
        most = roster_limit + clients
        self._client_limits: RecentlyUsed[str, ClientLimits] = RecentlyUsed(most)
        self._newcomer_limits: RecentlyUsed[str, ClientLimits] = RecentlyUsed(most)
        self._unknown_clients = ClientLimits(
            Rates(
                messages=UNKNOWN_MESSAGE_RATE,
                bytes=UNKNOWN_BYTE_RATE,
                registrations=Rate(NEW_CLIENT_RATE, NEW_CLIENT_BURST + 2 * clients),
                # All edges of a large fleet send their births at once, before they register.
                presences=Rate(NEW_CLIENT_RATE, most),
                work=Rate(UNKNOWN_WORK_RATE, CLIENT_WORK_RATE.burst + WORK_OF_NEW_CLIENT * clients),
            ),
            now,
        )

    def __len__(self) -> int:
        """The number of clients with limits of their own, newcomers included."""
        return len(self._client_limits) + len(self._newcomer_limits)

    def charge(
        self, client: str | None, kind: Limit, size: int, now: float, *, known: bool = True
    ) -> LimitExceeded | None:
        """Charges a message of ``size`` bytes: to its sender, and if that is not known, to all of those as well.

        Returns the limit that it exceeds, or null if it may be read.
        """
        for limits in self._limits_of(client, now, known=known):
            exceeded = limits.charge(kind, size, now)
            if exceeded is not None:
                return replace(exceeded, shared=limits is self._unknown_clients)
        return None

    def charge_work(self, client: str | None, seconds: float, now: float, *, known: bool = True) -> None:
        """Charges the time in which a message was decoded."""
        for limits in self._limits_of(client, now, known=known):
            limits.charge_work(seconds)

    def give_back(self, client: str | None, size: int, now: float, *, known: bool = True) -> None:
        """Undoes the charge of a message of ``size`` bytes that was asked for."""
        for limits in self._limits_of(client, now, known=known):
            limits.give_back(size)

    def refill(self, clients: Iterable[str]) -> None:
        """Restores the full burst of clients that are asked for updates."""
        for client in clients:
            limits = self._client_limits.get(client)
            if limits is not None:
                limits.refill()

    def should_notify(self, client: str, now: float) -> bool:
        """Whether a client should be told about its limits now: once in `LIMIT_NOTICE_INTERVAL` seconds."""
        return self._limits_of(client, now)[0].should_notify(now)

    def _limits_of(self, client: str | None, now: float, *, known: bool = True) -> tuple[ClientLimits, ...]:
        """All limits that a message of ``client`` must keep to."""
        if client is None:
            return (self._unknown_clients,)
        if known:
            return (self._client_limits.use(client, lambda: ClientLimits(CLIENT_RATES, now)),)
        own = self._newcomer_limits.use(client, lambda: ClientLimits(NEWCOMER_RATES, now))
        return (own, self._unknown_clients)
