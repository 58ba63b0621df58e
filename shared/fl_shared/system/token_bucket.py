"""How much of something may come: so much a second, and so much at once (a token bucket). PURE: it is told the time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """``each`` a second in the long run, ``burst`` at once."""

    per_second: float
    burst: float


class TokenBucket:
    """What is left of a `Rate`; full at first. Times are seconds of a clock that only grows."""

    __slots__ = ("_tokens", "_updated_at", "rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = rate.burst
        self._updated_at = now

    def take(self, amount: float, now: float) -> bool:
        """Takes ``amount`` if there is so much; else nothing."""
        if now > self._updated_at:
            self._tokens = min(
                self.rate.burst, self._tokens + (now - self._updated_at) * self.rate.per_second
            )
            self._updated_at = now
        if amount > self._tokens:
            return False
        self._tokens -= amount
        return True

    def give_back(self, amount: float) -> None:
        """``amount`` was taken for what should cost nothing."""
        self._tokens = min(self.rate.burst, self._tokens + amount)

    def refill(self) -> None:
        self._tokens = self.rate.burst
