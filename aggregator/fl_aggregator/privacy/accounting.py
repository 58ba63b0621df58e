"""What has been spent: from the plan, and from who was in which release, nothing else.

The noise of all releases is one Gaussian mechanism: an edge that was in the releases π shifts its mean by at most
‖Σ C[:, t], t ∈ π‖ clips, C the inverse of what correlates the noise (Denisov et al. 2022, arXiv:2202.08312, section 3).
Who is in which release follows from presence and the seed, never from data, so that the pattern that came about may be
charged. That divided by the noise multiplier is μ of Gaussian differential privacy (Dong, Roth, Su 2019,
arXiv:1905.02383), from which ε follows in closed form. Distributed noise is independent, and differs from release to
release: μ² is the sum of 1 / z² then, z the multiplier of each release.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fl_aggregator.privacy.correlated_noise import sensitivities
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_shared.privacy.gaussian_mechanism import advantage_of, epsilon_of


@dataclass(frozen=True, slots=True)
class Spent:
    """The most that was spent, by ``client``; null if no edge was in a release, or who was is secret.

    ``sensitivity``: in clips. ``on_wire``: with secret cohorts, the most ε against who sees who took part; else null.
    """

    client: str | None
    sensitivity: float
    mu: float
    epsilon: float
    advantage: float
    on_wire: float | None = None


def spent(plan: PrivacyPlan, taken: Mapping[str, Sequence[int]], noises: Sequence[float]) -> Spent:
    """Returns what has been spent, also in the earlier runs of the plan.

    ``taken``: by client, the releases that it is in, ascending. ``noises``: the noise multiplier of each release so
    far. Of several clients that have spent the same, it names the first.
    """
    if plan.against == "models":
        return _spent_in_secret(plan, len(noises))
    found = charges(plan, taken, noises)
    client = max(found, key=lambda name: found[name][1], default=None)
    sensitivity, mu = (0.0, math.sqrt(plan.earlier.square_of_all)) if client is None else found[client]
    return Spent(client, sensitivity, mu, epsilon_of(mu, plan.delta), advantage_of(mu))


def charges(
    plan: PrivacyPlan, taken: Mapping[str, Sequence[int]], noises: Sequence[float]
) -> dict[str, tuple[float, float]]:
    """Returns by client, in the order of their names, the sensitivity and μ, with that of the plan's earlier runs.

    The arguments are those of `spent`. Not against ``models``, where each client is charged the same.
    """
    names = sorted(taken.keys() | plan.earlier.squares.keys())
    patterns = [[number - 1 for number in taken.get(name, ())] for name in names]
    if plan.bands == 1:  # then releases are independent, and may have noise of different scales
        lengths = [math.sqrt(len(pattern)) for pattern in patterns]
        mus = [math.sqrt(math.fsum([noises[number] ** -2 for number in pattern])) for pattern in patterns]
    else:
        lengths = sensitivities(plan.coefficients, patterns, len(noises)).tolist()
        mus = [length / plan.noise for length in lengths]
    return {
        name: (length, math.hypot(mu, math.sqrt(plan.earlier.square_of(name))))
        for name, length, mu in zip(names, lengths, mus, strict=True)
    }


def _spent_in_secret(plan: PrivacyPlan, releases: int) -> Spent:
    """What secret cohorts have spent: each edge the same. Sensitivity and μ are of one that was in all of them."""
    epsilon, advantage = plan.spending.after(releases)
    length = math.sqrt(releases)
    mu = math.hypot(length / plan.noise, math.sqrt(plan.earlier.square_of_most))
    return Spent(None, length, mu, epsilon, advantage, epsilon_of(mu, plan.delta))
