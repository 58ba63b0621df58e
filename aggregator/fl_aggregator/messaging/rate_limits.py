"""How much anybody may say to the aggregator before the rest is dropped unread. PURE: it is told the time.

Every client on the roster has an account of its own, so that one cannot use up another's; all names that nobody knows
have one together. What was asked for costs nothing: chunks that were granted are given back, and whoever is selected
begins with a full account. So a limit is about what nobody wants, and an honest edge never meets one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, assert_never

from fl_shared.protocol.channels import Limit
from fl_shared.protocol.messages import LimitReason
from fl_shared.system.flood_control import Interval, RecentlyUsed
from fl_shared.system.token_bucket import Rate, TokenBucket

CLIENT_MESSAGE_RATE: Final = Rate(50, 500)
"""Of one client: updates, offers, chunks that were not granted, evaluations."""
CLIENT_BYTE_RATE: Final = Rate(32 * 2**20, 128 * 2**20)
"""Of one client, in all its messages. What may come at once is more than the largest packet."""
CLIENT_REGISTRATION_RATE: Final = Rate(1, 60)
"""Of one client; two a connection, and after a lost answer again in growing pauses."""
CLIENT_PRESENCE_RATE: Final = Rate(5, 100)
"""Of one client: births and wills."""
UNKNOWN_MESSAGE_RATE: Final = Rate(200, 2000)
"""Of all together who are not on the roster, and on bare topics."""
UNKNOWN_BYTE_RATE: Final = Rate(64 * 2**20, 256 * 2**20)
NEW_CLIENT_RATE: Final = 5.0
"""Names a second that are new to the roster, in the long run; each may be a line in the journal."""
NEW_CLIENT_BURST: Final = 1000
"""And so many at once beyond twice ``--clients``."""
LIMIT_NOTICE_INTERVAL: Final = 10.0
"""Seconds between two answers that tell a client of its limits."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What one account may take."""

    messages: Rate
    bytes: Rate
    registrations: Rate
    presences: Rate


CLIENT_RATES: Final = Rates(
    CLIENT_MESSAGE_RATE, CLIENT_BYTE_RATE, CLIENT_REGISTRATION_RATE, CLIENT_PRESENCE_RATE
)


class ClientLimits:
    """Of one client, or of all strangers."""

    __slots__ = ("_bytes", "_messages", "_presences", "_registrations", "_telling")

    def __init__(self, rates: Rates, now: float) -> None:
        self._messages = TokenBucket(rates.messages, now)
        self._bytes = TokenBucket(rates.bytes, now)
        self._registrations = TokenBucket(rates.registrations, now)
        self._presences = TokenBucket(rates.presences, now)
        self._telling = Interval(LIMIT_NOTICE_INTERVAL)

    def charge(self, kind: Limit, size: int, now: float) -> LimitExceeded | None:
        """One message of ``size`` bytes."""
        counted, reason = self._bucket_of(kind)
        if not counted.take(1, now):
            return LimitExceeded(reason, counted.rate)
        if not self._bytes.take(size, now):
            return LimitExceeded("too-many-bytes", self._bytes.rate)
        return None

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
        self._messages.give_back(1)
        self._bytes.give_back(size)

    def refill(self) -> None:
        self._messages.refill()
        self._bytes.refill()

    def should_notify(self, now: float) -> bool:
        """True once in a while, and then it counts as told."""
        return self._telling.is_due(now)


@dataclass(frozen=True, slots=True)
class LimitExceeded:
    """A message is more than its sender may say now."""

    reason: LimitReason
    rate: Rate

    def __str__(self) -> str:
        what = self.reason.removeprefix("too-many-")
        return f"{what}: expected at most {self.rate.per_second:.15g} per second, and {self.rate.burst:.15g} at once"


class RateLimits:
    """``clients`` and ``known_at_most`` as the run's settings have them. Times are seconds of a clock that only grows.

    At most ``known_at_most`` + ``clients`` accounts are kept: who is over that begins anew.
    """

    def __init__(self, clients: int, known_at_most: int, now: float) -> None:
        most = known_at_most + clients
        self._client_limits: RecentlyUsed[str, ClientLimits] = RecentlyUsed(most)
        self._unknown_clients = ClientLimits(
            Rates(
                messages=UNKNOWN_MESSAGE_RATE,
                bytes=UNKNOWN_BYTE_RATE,
                registrations=Rate(NEW_CLIENT_RATE, NEW_CLIENT_BURST + 2 * clients),
                # All edges of a large fleet are born at once, before they register.
                presences=Rate(NEW_CLIENT_RATE, most),
            ),
            now,
        )

    def __len__(self) -> int:
        """Accounts that are kept."""
        return len(self._client_limits)

    def charge(self, client: str | None, kind: Limit, size: int, now: float) -> LimitExceeded | None:
        """One message of ``size`` bytes by ``client`` (null: by anybody who is not known); null if it may say it."""
        account = self._unknown_clients if client is None else self._limits_of(client, now)
        return account.charge(kind, size, now)

    def give_back(self, client: str | None, size: int) -> None:
        """A message of ``size`` bytes that was charged was asked for."""
        account = self._unknown_clients if client is None else self._client_limits.get(client)
        if account is not None:
            account.give_back(size)

    def refill(self, clients: Iterable[str]) -> None:
        """These are asked to speak: what they said before does not count any more."""
        for client in clients:
            account = self._client_limits.get(client)
            if account is not None:
                account.refill()

    def should_notify(self, client: str, now: float) -> bool:
        """Whether a client that exceeds its limits is told of it now: once in ``LIMIT_NOTICE_INTERVAL`` seconds."""
        return self._limits_of(client, now).should_notify(now)

    def _limits_of(self, client: str, now: float) -> ClientLimits:
        return self._client_limits.use(client, lambda: ClientLimits(CLIENT_RATES, now))
