"""What Gaussian noise hides, in closed form: ε, δ and an attacker's advantage for a mechanism's μ.

μ is the mechanism's sensitivity in units of its noise's standard deviation. k releases of sensitivity 1 with noise
multiplier z compose to exactly one mechanism of μ = √k / z (Dong, Roth, Su 2019, "Gaussian Differential Privacy",
arXiv:1905.02383, corollary 3.3). δ(ε) is that of Balle and Wang 2018, "Improving the Gaussian Mechanism for
Differential Privacy", arXiv:1805.06530, theorem 8. Nothing here is a bound: a smaller ε would be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

_SERIES_BELOW: Final = -30.0
"""``erfc`` is accurate above it, and the asymptotic series of so many terms below it, both to the last digits."""
_TERMS: Final = 8


def delta_of(epsilon: float, mu: float) -> float:
    """The least δ with which a mechanism of ``mu`` ≥ 0 is (``epsilon``, δ)-private, for ``epsilon`` ≥ 0.

    Φ(μ/2 − ε/μ) − exp(ε) Φ(−μ/2 − ε/μ): Balle and Wang 2018, equation 6, with logarithms of Φ.
    """
    _check_epsilon(epsilon)
    _check_mu(mu)
    if mu == 0:
        return 0.0
    first = _log_phi(mu / 2 - epsilon / mu)
    second = epsilon + _log_phi(-mu / 2 - epsilon / mu)
    return math.exp(first) * -math.expm1(min(second - first, 0.0))


def epsilon_of(mu: float, delta: float) -> float:
    """The least ε with which a mechanism of ``mu`` ≥ 0 is (ε, ``delta``)-private; 0 < ``delta`` < 1.

    If a float is not exact, the next greater one.
    """
    _check_delta(delta)
    _check_mu(mu)
    return _boundary(lambda epsilon: delta_of(epsilon, mu) > delta)[1]


def mu_of(epsilon: float, delta: float) -> float:
    """The largest μ of a mechanism that is (``epsilon``, ``delta``)-private; ``epsilon`` ≥ 0, 0 < ``delta`` < 1.

    If a float is not exact, the next smaller one. A mechanism of sensitivity s needs noise of deviation s / μ.
    """
    _check_delta(delta)
    return _boundary(lambda mu: delta_of(epsilon, mu) <= delta)[0]


def advantage_of(mu: float) -> float:
    """How much more often than a coin the best attacker is right who tells whether an edge's data was used, times 2.

    2 Φ(μ/2) − 1: the largest difference between true and false positives, which is δ(0) (Dong, Roth, Su 2019).
    """
    _check_mu(mu)
    return math.erf(mu / math.sqrt(8))


def _boundary(holds: Callable[[float], bool]) -> tuple[float, float]:
    """The neighbouring floats x < y, at least 0, with ``holds`` (x) and not ``holds`` (y); (0, 0) if not even (0)."""
    if not holds(0.0):
        return 0.0, 0.0
    low, high = 0.0, 1.0
    while holds(high):
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high


def _log_phi(x: float) -> float:
    """The logarithm of the normal distribution function."""
    if x > _SERIES_BELOW:
        return math.log(math.erfc(-x / math.sqrt(2)) / 2)
    # Abramowitz and Stegun, 26.2.12.
    term = total = 1.0
    for index in range(1, _TERMS):
        term *= -(2 * index - 1) / (x * x)
        total += term
    return -x * x / 2 - math.log(-x * math.sqrt(2 * math.pi)) + math.log(total)


def _check_epsilon(epsilon: float) -> None:
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon: {epsilon}, expected a number of at least 0")


def _check_mu(mu: float) -> None:
    if not 0 <= mu < math.inf:
        raise ValueError(f"mu: {mu}, expected a number of at least 0")


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise ValueError(f"delta: {delta}, expected a number between 0 and 1")
