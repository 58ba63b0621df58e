"""Limits the prediction requests to the edges of a process, in total and for each asker (protocol, 7.6)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from fl_shared.system.flood_control import Interval, RecentlyUsed, is_worth_logging
from fl_shared.system.token_bucket import Rate, TokenBucket

LOG = logging.getLogger(__name__)

REQUEST_RATE: Final = Rate(400, 800)
"""Requests per second, and in a burst. Each costs a digest and an answer of some kind, in the thread that
runs the edges."""
BYTE_RATE: Final = Rate(64 * 2**20, 256 * 2**20)
"""Bytes of requests per second, and in a burst."""
REQUEST_RATE_PER_ASKER: Final = Rate(200, 400)
"""Requests with one response topic per second, and in a burst, so that one asker leaves room for others.
Requests without one count as one asker's."""
WORK_RATE: Final = Rate(1, 10)
"""Seconds of processor time that workers spend on requests, per second, and in a burst. It is charged when it has been
measured: a request above the limit is answered, and the next ones are refused until time has made up for it."""
WORK_RATE_PER_ASKER: Final = Rate(0.5, 5)
"""The same for requests with one response topic."""
MAX_ASKERS: Final = 1000
"""Response topics that are told apart."""
REJECTION_NOTICE_INTERVAL: Final = 1.0
"""Seconds between two answers that report one of these limits."""


@dataclass(frozen=True, slots=True)
class _Asker:
    requests: TokenBucket
    work: TokenBucket


class PredictionRateLimiter:
    """Counts requests against the limits, from ``now`` on. All times are in seconds on one clock."""

    def __init__(self, now: float) -> None:
        self._requests = TokenBucket(REQUEST_RATE, now)
        self._bytes = TokenBucket(BYTE_RATE, now)
        self._work = TokenBucket(WORK_RATE, now)
        self._askers: RecentlyUsed[str | None, _Asker] = RecentlyUsed(MAX_ASKERS)
        self._notices = Interval(REJECTION_NOTICE_INTERVAL)
        self._refused = 0

    def __len__(self) -> int:
        """The number of askers that are told apart at present."""
        return len(self._askers)

    def refusal(self, asker: str | None, size: int, now: float) -> str | None:
        """Counts a request of ``size`` bytes, and returns which limit it exceeds, or ``None``.

        ``asker`` is its response topic, ``None`` if it has none.
        """
        known = self._asker(asker, now)
        if not known.requests.take(1, now):
            most = f"{REQUEST_RATE_PER_ASKER.per_second:g} per second"
            return f"requests: expected at most {most} with one response topic"
        if not known.work.take(0, now):
            most = f"{WORK_RATE_PER_ASKER.per_second:g} s of work per second"
            return f"requests: expected at most {most} with one response topic"
        if not self._requests.take(1, now):
            return f"requests: expected at most {REQUEST_RATE.per_second:g} per second"
        if not self._work.take(0, now):
            return f"requests: expected at most {WORK_RATE.per_second:g} s of work per second"
        if not self._bytes.take(size, now):
            return f"requests: expected at most {BYTE_RATE.per_second:.15g} bytes per second"
        return None

    def charge_work(self, asker: str | None, seconds: float, now: float) -> None:
        """Counts ``seconds`` of processor time that a request of ``asker`` took."""
        for bucket in (self._asker(asker, now).work, self._work):
            bucket.take(
                0, now
            )  # brings it up to date: idle time before the work must not make up for the work
            bucket.spend(seconds)

    def _asker(self, asker: str | None, now: float) -> _Asker:
        return self._askers.use(
            asker,
            lambda: _Asker(TokenBucket(REQUEST_RATE_PER_ASKER, now), TokenBucket(WORK_RATE_PER_ASKER, now)),
        )

    def should_notify(self, rejection: str, now: float) -> bool:
        """Whether a refused request should be answered; must be called once for each.

        It also logs the first refusal and those at powers of ten.
        """
        self._refused += 1
        if is_worth_logging(self._refused - 1, self._refused):
            LOG.warning("refusing prediction requests: %s (%d refused)", rejection, self._refused)
        return self._notices.is_due(now)
