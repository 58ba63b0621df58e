"""How much of something may come: so much a second, and so much at once (a token bucket). PURE: it is told the time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """``each`` a second in the long run, ``burst`` at once."""

    each: float
    burst: float


class TokenBucket:
    """What is left of a `Rate`; full at first. Times are seconds of a clock that only grows."""

    __slots__ = ("_at", "_left", "rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._left = rate.burst
        self._at = now

    def take(self, amount: float, now: float) -> bool:
        """Takes ``amount`` if there is so much; else nothing."""
        if now > self._at:
            self._left = min(self.rate.burst, self._left + (now - self._at) * self.rate.each)
            self._at = now
        if amount > self._left:
            return False
        self._left -= amount
        return True

    def give_back(self, amount: float) -> None:
        """``amount`` was taken for what should cost nothing."""
        self._left = min(self.rate.burst, self._left + amount)

    def fill(self) -> None:
        self._left = self.rate.burst
