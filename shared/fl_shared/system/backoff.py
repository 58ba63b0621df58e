"""How long to wait before the next attempt: longer after each one that failed. Pure: the caller draws the jitter."""

from __future__ import annotations

_LARGEST_EXPONENT = 64
"""From here on every limit is reached, and a float overflows at 1024."""


def backoff(attempt: int, first: float, most: float, jitter: float = 0.0) -> float:
    """Seconds to wait: ``first`` × 2^``attempt``, at most ``most``, less the share ``jitter`` of it.

    ``attempt`` counts from 0. ``jitter`` is from 0 to 1, and spreads callers that failed together: a random number
    from 0 to 1 gives any wait up to the bound, one from 0 to 0.5 at least half of it.
    """
    return min(most, first * 2.0 ** min(attempt, _LARGEST_EXPONENT)) * (1.0 - jitter)
