"""The ε of releases whose cohorts are secret: each edge is in each of them with the same probability, independently.

That is the Poisson-sampled Gaussian mechanism. Its privacy losses are composed numerically by dp-accounting (Koskela
and others 2020, arXiv:1906.03049; Doroshenko and others 2022, arXiv:2207.04380), whose errors all make ε larger. It is
the extra ``fl-mqtt[dp]``, imported when it is first needed, which takes 2 s.

Neighbours differ by zero-out, as everywhere: `NeighboringRelation.REPLACE_SPECIAL`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from fl_shared.errors import UserError
from fl_shared.privacy.gaussian_mechanism import mu_of
from fl_shared.system.invocation import install_command

_INTERVAL: Final = 1e-3
"""Of privacy losses, which are rounded to its multiples."""
_PRECISION: Final = 1e-4
"""Of the noise that is found, relatively."""
LEAST_NOISE: Final = 0.2
"""With less, ε is in the hundreds, and takes minutes and GBs to compute."""
LEAST_DELTA: Final = 1e-12
"""With less, the tails of the privacy loss that dp-accounting leaves out are more than δ."""


class Releases(NamedTuple):
    """``number`` releases with the noise multiplier ``noise``, each with an edge with probability ``rate``."""

    noise: float
    rate: float
    number: int


def library() -> Any:
    """The package ``dp_accounting``. Raises ``UserError`` if it is not installed."""
    try:
        import dp_accounting
        import dp_accounting.pld
    except ImportError:
        raise UserError(f"--dp-against models needs dp-accounting: {install_command('dp')}") from None
    return dp_accounting


def epsilon_of(
    noise: float, rate: float, releases: int, delta: float, earlier: Sequence[Releases] = ()
) -> float:
    """The ε at ``delta`` of ``releases`` with noise multiplier ``noise``, each with an edge with probability ``rate``.

    ``earlier``: what other runs have told of the edge. 0.1 to 0.5 s. Raises ``ValueError`` for numbers out of their
    ranges, and ``UserError`` as `library` does.
    """
    return composed_epsilon([*earlier, Releases(noise, rate, releases)], delta)


def composed_epsilon(spent: Iterable[Releases], delta: float) -> float:
    """The ε at ``delta`` of all these releases, of several runs. Raises as `epsilon_of` does."""
    if not 0 < delta < 1:
        raise ValueError(f"delta: {delta}, expected a number between 0 and 1")
    accountant = _accountant()
    for one in spent:
        _compose(accountant, one)
    return float(accountant.get_epsilon(delta))


class Spending:
    """What ``noise`` and ``rate`` have told of an edge after any number of releases, each composed once.

    ``earlier``: what other runs have told of it before. A run asks after each release, and again for all of them when
    it is resumed.
    """

    def __init__(self, noise: float, rate: float, delta: float, earlier: tuple[Releases, ...] = ()) -> None:
        self._one = Releases(noise, rate, 1)
        self._delta = delta
        self._earlier = earlier
        self._state: tuple[Any, tuple[tuple[float, float], ...]] = (
            None,
            () if earlier else ((0.0, 0.0),),
        )
        """The accountant after the releases that are known, and what is known: both are replaced, never changed."""

    def after(self, releases: int) -> tuple[float, float]:
        """Returns ε, and the advantage of who must tell whether an edge took part, which is δ for ε = 0.

        May be called on any thread, since views ask as well as the run: at worst, two do the same.
        """
        accountant, known = self._state
        if len(known) <= releases:
            if accountant is None:
                accountant = _accountant()
                for one in self._earlier:
                    _compose(accountant, one)
            else:
                accountant = copy.deepcopy(accountant)
            while len(known) <= releases:
                if known:
                    _compose(accountant, self._one)
                epsilon, advantage = accountant.get_epsilon(self._delta), accountant.get_delta(0.0)
                known = (*known, (float(epsilon), min(1.0, max(0.0, float(advantage)))))
            self._state = accountant, known
        return known[releases]


@cache
def spending(noise: float, rate: float, delta: float, earlier: tuple[Releases, ...] = ()) -> Spending:
    """The one `Spending` of these numbers."""
    return Spending(noise, rate, delta, earlier)


def _accountant() -> Any:
    dp = library()
    relation = dp.NeighboringRelation.REPLACE_SPECIAL
    return dp.pld.PLDAccountant(relation, value_discretization_interval=_INTERVAL)


def _compose(accountant: Any, spent: Releases) -> None:
    dp, (noise, rate, count) = library(), spent
    if not (noise > 0 and 0 < rate <= 1 and count >= 0):
        raise ValueError(
            f"noise {noise}, rate {rate}, releases {count}: expected more than 0, 0 to 1, at least 0"
        )
    if count:
        accountant.compose(dp.PoissonSampledDpEvent(rate, dp.GaussianDpEvent(noise)), count)


def noise_for(
    epsilon: float, delta: float, rate: float, releases: int, earlier: Sequence[Releases] = ()
) -> float:
    """The least noise multiplier, to 1 in 10,000, with which `epsilon_of` ``releases`` is at most ``epsilon`` > 0.

    It is `LEAST_NOISE` at least. ``earlier`` must have told less than ``epsilon``. About 1 s. Raises as `epsilon_of`.
    """
    library()
    if delta < LEAST_DELTA:
        raise UserError(f"--dp-against models needs δ of at least {LEAST_DELTA:g}, but it is {delta:g}")
    from scipy.optimize import brentq  # which dp-accounting brings

    if not (epsilon > 0 and 0 < rate <= 1 and releases >= 1):
        raise ValueError(
            f"epsilon {epsilon}, rate {rate}, releases {releases}: expected more than 0, 0 to 1, at least 1"
        )

    @cache
    def excess(log_noise: float) -> float:
        return epsilon_of(math.exp(log_noise), rate, releases, delta, earlier) - epsilon

    # Bu and others 2019, arXiv:1911.11607: of many releases μ is about rate √(releases (e^(1/z²) − 1)).
    guess = -math.log(math.log1p((mu_of(epsilon, delta) / rate) ** 2 / releases)) / 2
    least = math.log(LEAST_NOISE)
    low = high = max(guess, least)
    while excess(low) <= 0:
        if low == least:
            return LEAST_NOISE
        low = max(low - 0.3, least)
    while excess(high) > 0:
        high += 0.3
    return math.exp(brentq(excess, low, high, xtol=_PRECISION / 4) + _PRECISION / 2)
