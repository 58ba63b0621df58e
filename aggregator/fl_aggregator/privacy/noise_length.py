"""How long a release's noise is beside the updates in it: whether a private run can learn anything.

Noise has the length noise × clip × √values, as it is independent in each value; the mean of updates has at most that
of the clip. Updates add up over releases at most n-fold, independent noise √n-fold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from fl_aggregator.privacy.correlated_noise import prefix_error
from fl_aggregator.privacy.plan import PrivacyPlan

NOTHING_FROM: Final = 1.0
"""From that much noise over all releases on, beside updates that all agree, nothing can be learnt."""
LITTLE_FROM: Final = 0.3


@dataclass(frozen=True, slots=True)
class NoiseLength:
    """How many times as long the noise is as the longest possible mean update.

    ``release``: in one release. ``run``: in all together, if all updates of all releases agree.
    """

    release: float
    run: float

    @property
    def teaches(self) -> str:
        """What can be learnt: ``nothing``, ``little``, or ``something``."""
        return "nothing" if self.run >= NOTHING_FROM else "little" if self.run >= LITTLE_FROM else "something"


def noise_length(noise: float, values: int, updates: int, releases: int) -> NoiseLength:
    """Returns the length of the noise of means of ``updates`` of ``values`` shared parameters.

    ``noise``: the noise multiplier of independent noise, or the `effective_noise`.
    """
    release = noise * math.sqrt(values) / updates
    return NoiseLength(release, release / math.sqrt(releases))


def most_values(noise: float, updates: int, releases: int) -> int:
    """Returns with how many shared parameters nothing can be learnt any more; the arguments of `noise_length`."""
    return math.ceil((NOTHING_FROM * math.sqrt(releases) * updates / noise) ** 2)


def effective_noise(plan: PrivacyPlan) -> float:
    """The noise multiplier of independent noise that would move the model as far as the plan's noise does.

    That of correlated noise is larger than this, since later releases take a part of it back.
    """
    independent = prefix_error((1.0,), plan.releases)
    return plan.noise * prefix_error(plan.coefficients, plan.releases) / independent


def error_of_share(plan: PrivacyPlan, noise: float, weight: int, edges: int) -> float:
    """Returns the standard error of a proportion in a survey of ``edges`` edges.

    ``noise``: the noise multiplier that is accounted. Of distributed noise the part of colluders is not accounted, but
    it is in the sum as well. ``weight``: see `proportions.weight_of`.
    """
    all_noise = noise * math.sqrt(edges / (edges - plan.colluders))
    return all_noise * plan.clip * math.sqrt(weight) / edges
