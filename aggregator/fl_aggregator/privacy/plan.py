"""How much noise a run adds to its versions, and how often an edge may contribute: fixed before the run begins.

The unit of privacy is an edge, with all of its data. Neighbouring runs differ in what one edge contributes, which is
replaced by nothing (zero-out: Kairouz et al. 2021, "Practical and Private (Deep) Learning without Sampling or
Shuffling", arXiv:2103.00039, definition 1.1). A *release* is a version that is made from updates; they are numbered
as versions, from 1.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from fl_aggregator.privacy import subsampled
from fl_aggregator.privacy.adaptive_clip import ROOM
from fl_aggregator.privacy.bounded_mean import deviation_of, model_multiplier
from fl_aggregator.privacy.correlated_noise import (
    best_gamma,
    coefficients,
    strategy_column,
    worst_sensitivity,
)
from fl_aggregator.privacy.ledger import NOTHING_EARLIER, Earlier
from fl_shared.privacy.gaussian_mechanism import epsilon_of, mu_of

Mechanism = Literal["central", "distributed"]
Adversary = Literal["wire", "models"]
_ROUNDING: Final = 1e-12
"""Of sums of μ², relative: half of a budget and half of it are no more than all of it."""
MAX_BANDS: Final = 4
"""Releases whose noise is correlated, at most, by default: more gain nothing (see `correlated_noise`)."""


class PrivacyPlan(BaseModel):
    """What is promised, and how.

    ``against``: ``wire`` sees the models and who took part, ``models`` sees the models only. ``clip``: the greatest L2
    norm of an update, that of the first release if it is ``adaptive``. ``noise``: the standard deviation of a release's
    noise before it is correlated, in units of ``clip``; of all that a release tells, if that is more than a model.
    ``accuracy``: it tells the mean accuracy of edges as well. ``expected``: the updates of a release; ``rate``: the
    probability with which an edge is in one, against ``models``. ``epsilon``: the
    budget, null without one. ``apart``, ``times``: an edge contributes to at most one of ``apart`` releases in a row,
    and to at most ``times`` in all. ``bands``: the releases whose noise is correlated; 1: none. ``gamma``: how (see
    `correlated_noise.coefficients`). ``releases``: how many the run makes. ``insecure``: the noise follows from a known
    seed. ``earlier``: what earlier runs with the same ledger have told.

    ``least``, ``colluders``: of a ``distributed`` plan, the updates of the smallest sum, and how many edges of a sum
    may leave out their noise. ``noise`` is what the others have together in such a sum; larger ones have more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mechanism: Mechanism
    against: Adversary = "wire"
    clip: float
    adaptive: bool = False
    noise: float
    delta: float
    epsilon: float | None = None
    apart: int
    times: int
    bands: int = 1
    gamma: float = 0.0
    releases: int
    insecure: bool = False
    least: int = 0
    colluders: int = 0
    accuracy: bool = False
    expected: int = 1
    earlier: Earlier = NOTHING_EARLIER
    rate: float = 1.0

    @property
    def mean_deviation(self) -> float:
        """The standard deviation of the noise of a sum of one number from 0 to 1 of each edge."""
        return deviation_of(self.noise, self.expected)

    @property
    def model_noise(self) -> float:
        """The standard deviation of the noise of a release's model, as ``noise``, which counts its means as well."""
        means = self.adaptive + self.accuracy
        return model_multiplier(self.noise, self.mean_deviation, means) if means else self.noise

    @property
    def room(self) -> float:
        """How many times greater or smaller than ``clip`` that of a release may be."""
        return ROOM if self.adaptive else 1.0

    @cached_property
    def coefficients(self) -> tuple[float, ...]:
        """By how much the noise of the last ``bands`` releases counts in a release, the newest first."""
        return coefficients(self.gamma, self.bands)

    @property
    def deviations(self) -> tuple[float, ...]:
        """The standard deviations of the parts of a release's noise, in units of the clip, the newest first."""
        return tuple(self.model_noise * one for one in self.coefficients)

    @cached_property
    def limits(self) -> Mapping[str, int]:
        """How often those may contribute that have spent a part of the budget in earlier runs, by client.

        It is not for secret cohorts, in which each edge may be.
        """
        if self.epsilon is None or not self.earlier.squares or self.against == "models":
            return {}
        squares = [
            _sensitivity(self.gamma, self.bands, self.apart, count, self.releases) ** 2
            for count in range(1, self.times + 1)
        ]
        budget = mu_of(self.epsilon, self.delta) ** 2 * (1 + _ROUNDING)
        return {
            client: bisect_right(squares, (budget - self.earlier.square_of(client)) * self.noise**2)
            for client in self.earlier.squares
        }

    def times_of(self, client: str) -> int:
        """To how many releases of this run a client may contribute."""
        return self.limits.get(client, self.times)

    @property
    def is_limited(self) -> bool:
        """Whether an edge contributes no more than ``times``, also if sums of abandoned rounds were opened."""
        return self.epsilon is not None or self.times < math.ceil(self.releases / self.apart)

    @property
    def planned_epsilon(self) -> float:
        """ε of an edge that contributes as often as it may, at the worst times, once all releases are made.

        With all that earlier runs have told.
        """
        if self.against == "models":
            return self.spending.after(self.times)[0]
        most = self.epsilon_with(
            _sensitivity(self.gamma, self.bands, self.apart, self.times, self.releases) / self.noise
        )
        # Who has spent a part of the budget before contributes less often.
        return most if self.epsilon is None or not self.limits else min(most, self.epsilon)

    @property
    def earlier_epsilon(self) -> float:
        """ε of earlier runs."""
        return self.spending.after(0)[0] if self.against == "models" else self.epsilon_with(0.0)

    def epsilon_with(self, mu: float) -> float:
        """ε of ``mu`` in this run and of the most in earlier ones, against who sees who took part."""
        return epsilon_of(math.hypot(mu, math.sqrt(self.earlier.square_of_most)), self.delta)

    @property
    def spending(self) -> subsampled.Spending:
        """What secret cohorts have told, with earlier runs. Raises ``UserError`` if a package is missing."""
        return subsampled.spending(self.noise, self.rate, self.delta, self.earlier.of_models)


def _sensitivity(gamma: float, bands: int, apart: int, times: int, releases: int) -> float:
    """Returns by how much ``times`` contributions at the worst times shift all releases, in clips."""
    if bands == 1:
        return math.sqrt(times)
    return worst_sensitivity(strategy_column(coefficients(gamma, bands), releases), apart, times, releases)


def make_plan(
    *,
    noise: float | None,
    times: int | None,
    delta: float,
    epsilon: float | None,
    apart: int,
    bands: int,
    releases: int,
    against: Adversary = "wire",
    rate: float = 1.0,
    earlier: Earlier = NOTHING_EARLIER,
    **others: Any,
) -> PrivacyPlan:
    """Returns the plan with the noise that the budget asks for, or with as many contributions as both allow.

    That is the budget that ``earlier`` runs have left of each edge, whatever it was in: edges that have spent more of
    it contribute less often. ``others``: fields of the plan that play no role in that. Raises ``ValueError`` that
    begins with the name of a setting if not even one release is within the budget.
    """
    most = math.ceil(releases / apart)
    times = most if times is None else min(times, most)
    gamma = best_gamma(releases, apart, times, bands) if bands > 1 else 0.0
    bands = bands if gamma else 1

    def sensitivity(count: int) -> float:
        return _sensitivity(gamma, bands, apart, count, releases)

    if against == "models":
        noise, times = _secret_noise(noise, delta, epsilon, rate, releases, earlier.of_models)
    elif noise is None:
        assert epsilon is not None, "a budget or a noise multiplier"
        noise = sensitivity(times) / _mu_left(epsilon, delta, earlier)
    elif epsilon is not None:
        most_mu = _mu_left(epsilon, delta, earlier)
        if sensitivity(1) > most_mu * noise:
            one, least = epsilon_of(sensitivity(1) / noise, delta), sensitivity(1) / most_mu
            raise ValueError(_too_little(noise, one, epsilon, least))
        counts = range(1, times + 1)
        times = bisect_right(counts, most_mu * noise, key=sensitivity)  # it grows with their number
    return PrivacyPlan(
        noise=noise,
        times=times,
        delta=delta,
        epsilon=epsilon,
        apart=apart,
        bands=bands,
        gamma=gamma,
        releases=releases,
        against=against,
        rate=rate,
        earlier=earlier,
        **others,
    )


def _mu_left(epsilon: float, delta: float, earlier: Earlier) -> float:
    """Returns the μ that earlier runs have left of each edge. Raises ``ValueError`` if they have left nothing."""
    left = mu_of(epsilon, delta) ** 2 - earlier.square_of_all
    if left <= 0:
        raise ValueError(_nothing_left(epsilon, epsilon_of(math.sqrt(earlier.square_of_all), delta)))
    return math.sqrt(left)


def _nothing_left(epsilon: float, told: float) -> str:
    return (
        f"dp_epsilon: {epsilon:g}: earlier runs with the same ledger have spent ε {told:.3g} of each edge, "
        "which leaves nothing: expected more"
    )


def _too_little(noise: float, one: float, epsilon: float, least: float) -> str:
    return (
        f"dp_noise: {noise:g}: ε of one release is {one:.3g}, more than --dp-epsilon {epsilon:g}: "
        f"expected --dp-noise of at least {least:.3g}, or a larger --dp-epsilon"
    )


def _secret_noise(
    noise: float | None,
    delta: float,
    epsilon: float | None,
    rate: float,
    releases: int,
    earlier: tuple[subsampled.Releases, ...],
) -> tuple[float, int]:
    """Returns the noise multiplier of secret cohorts, and how many releases the budget allows."""
    if any(one.noise < subsampled.LEAST_NOISE for one in earlier):
        raise ValueError(
            f"dp_ledger: earlier runs have told more of an edge than one release with the noise multiplier "
            f"{subsampled.LEAST_NOISE:g}, which cannot be composed with secret cohorts: begin another ledger"
        )
    if epsilon is None:
        assert noise is not None, "a budget or a noise multiplier"
        subsampled.library()
        return noise, releases
    if earlier and (told := subsampled.composed_epsilon(earlier, delta)) >= epsilon:
        raise ValueError(_nothing_left(epsilon, told))
    if noise is None:
        return subsampled.noise_for(epsilon, delta, rate, releases, earlier), releases
    one = subsampled.epsilon_of(noise, rate, 1, delta, earlier)
    if one > epsilon:
        least = subsampled.noise_for(epsilon, delta, rate, 1, earlier)
        raise ValueError(_too_little(noise, one, epsilon, least))
    numbers = range(1, releases + 1)
    return noise, bisect_right(
        numbers, epsilon, key=lambda number: subsampled.epsilon_of(noise, rate, number, delta, earlier)
    )
