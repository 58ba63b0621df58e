"""Limits how much may come per second and at once (a token bucket). PURE: the caller passes the time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit: ``per_second`` in the long run, and ``burst`` at once."""

    per_second: float
    burst: float


class TokenBucket:
    """The unused allowance of a `Rate`; full at first. Times are seconds of a monotonic clock."""

    __slots__ = ("_tokens", "_updated_at", "rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = rate.burst
        self._updated_at = now

    def take(self, amount: float, now: float) -> bool:
        """Takes ``amount`` if that much is left; otherwise takes nothing and returns False."""
        if now > self._updated_at:
            self._tokens = min(
                self.rate.burst, self._tokens + (now - self._updated_at) * self.rate.per_second
            )
            self._updated_at = now
        if amount > self._tokens:
            return False
        self._tokens -= amount
        return True

    def spend(self, amount: float) -> None:
        """Takes ``amount`` whether or not that much is left: nothing can be taken until time has made up for it."""
        self._tokens -= amount

    def give_back(self, amount: float) -> None:
        """Returns an ``amount`` that was taken for something that should cost nothing."""
        self._tokens = min(self.rate.burst, self._tokens + amount)

    def refill(self) -> None:
        """Fills the bucket up to ``burst``."""
        self._tokens = self.rate.burst
