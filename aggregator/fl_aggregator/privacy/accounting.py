"""What has been spent: from the plan, and from who was in which release, nothing else.

The noise of all releases is one Gaussian mechanism: an edge that was in the releases π shifts its mean by at most
‖Σ C[:, t], t ∈ π‖ clips, C the inverse of what correlates the noise (Denisov et al. 2022, arXiv:2202.08312, section 3).
Who is in which release follows from presence and the seed, never from data, so that the pattern that came about may be
charged. That divided by the noise multiplier is μ of Gaussian differential privacy (Dong, Roth, Su 2019,
arXiv:1905.02383), from which ε follows in closed form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fl_aggregator.privacy.correlated_noise import sensitivities
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_shared.privacy.gaussian_mechanism import advantage_of, epsilon_of


@dataclass(frozen=True, slots=True)
class Spent:
    """The most that was spent, by ``client``; null if no edge was in a release. ``sensitivity``: in clips."""

    client: str | None
    sensitivity: float
    mu: float
    epsilon: float
    advantage: float


def spent(plan: PrivacyPlan, taken: Mapping[str, Sequence[int]], releases: int) -> Spent:
    """Returns what has been spent after ``releases``. ``taken``: by client, the releases that it is in, ascending.

    Of several clients that have spent the same, it names the first.
    """
    if not taken:
        return Spent(None, 0.0, 0.0, 0.0, 0.0)
    names = sorted(taken)
    patterns = [[number - 1 for number in taken[name]] for name in names]
    found = sensitivities(plan.coefficients, patterns, releases)
    most = int(found.argmax())
    sensitivity = float(found[most])
    mu = sensitivity / plan.noise
    return Spent(names[most], sensitivity, mu, epsilon_of(mu, plan.delta), advantage_of(mu))
