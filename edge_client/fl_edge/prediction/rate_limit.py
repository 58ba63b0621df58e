"""Limits the prediction requests to the edges of a process, in total and for each asker (protocol, 7.6)."""

from __future__ import annotations

import logging
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
MAX_ASKERS: Final = 1000
"""Response topics that are told apart."""
REJECTION_NOTICE_INTERVAL: Final = 1.0
"""Seconds between two answers that report one of these limits."""


class PredictionRateLimiter:
    """Counts requests against the limits, from ``now`` on. All times are in seconds on one clock."""

    def __init__(self, now: float) -> None:
        self._requests = TokenBucket(REQUEST_RATE, now)
        self._bytes = TokenBucket(BYTE_RATE, now)
        self._askers: RecentlyUsed[str | None, TokenBucket] = RecentlyUsed(MAX_ASKERS)
        self._notices = Interval(REJECTION_NOTICE_INTERVAL)
        self._refused = 0

    def __len__(self) -> int:
        """The number of askers that are told apart at present."""
        return len(self._askers)

    def refusal(self, asker: str | None, size: int, now: float) -> str | None:
        """Counts a request of ``size`` bytes, and returns which limit it exceeds, or ``None``.

        ``asker`` is its response topic, ``None`` if it has none.
        """
        bucket = self._askers.use(asker, lambda: TokenBucket(REQUEST_RATE_PER_ASKER, now))
        if not bucket.take(1, now):
            most = f"{REQUEST_RATE_PER_ASKER.per_second:g} per second"
            return f"requests: expected at most {most} with one response topic"
        if not self._requests.take(1, now):
            return f"requests: expected at most {REQUEST_RATE.per_second:g} per second"
        if not self._bytes.take(size, now):
            return f"requests: expected at most {BYTE_RATE.per_second:.15g} bytes per second"
        return None

    def should_notify(self, rejection: str, now: float) -> bool:
        """Whether a refused request should be answered; must be called once for each.

        It also logs the first refusal and those at powers of ten.
        """
        self._refused += 1
        if is_worth_logging(self._refused - 1, self._refused):
            LOG.warning("refusing prediction requests: %s (%d refused)", rejection, self._refused)
        return self._notices.is_due(now)
