"""How long to wait before the next attempt: longer after each failure. Pure: the caller draws the jitter."""

from __future__ import annotations

_LARGEST_EXPONENT = 64
"""At this exponent every limit in use has been reached; a float would overflow at 1024."""


def backoff(attempt: int, first: float, most: float, jitter: float = 0.0) -> float:
    """Seconds to wait: ``first`` × 2^``attempt``, at most ``most``, reduced by the fraction ``jitter``.

    ``attempt`` counts from 0. ``jitter`` is from 0 to 1, and spreads callers that failed at the same time: a
    random number from 0 to 1 gives any wait up to the bound, one from 0 to 0.5 gives at least half of it.
    """
    return min(most, first * 2.0 ** min(attempt, _LARGEST_EXPONENT)) * (1.0 - jitter)
