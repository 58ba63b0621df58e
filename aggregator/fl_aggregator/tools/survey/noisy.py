"""The result of a survey under a privacy budget: what its noisy mean says, and how far noise may have moved that.

All figures are about an example that is drawn at random from an edge that is drawn at random. The noise of each
proportion is independent and has one standard deviation. It is known that some proportions add up to 1, so what their
sum differs from that by is taken off them in equal parts, which leaves less of the noise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from fl_aggregator.configuration.survey import Survey
from fl_aggregator.privacy.noise_length import error_of_share
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_aggregator.tools.survey.result import FRACTIONS
from fl_shared.protocol import messages as m
from fl_shared.survey.bins import Floats
from fl_shared.survey.proportions import BINS, SIZES, NumberProportions, Proportions, size_bounds

LEAST_PRESENT: Final = 4
"""Standard errors that the share of values has at least where something is divided by it."""
LEAST_SPREAD: Final = 2
"""Standard errors that a variance has at least, so that its root is shown."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Estimate(_Frozen):
    """A number, and the standard error that noise gives it. A share may be below 0, or above 1."""

    value: float
    error: float


class NoisyQuantile(_Frozen):
    """The values below which a ``fraction`` of all lies are from ``low`` to ``high``, the ends of a bin.

    ``rank_error``: the standard error of the fraction of values that are below ``high``.
    """

    fraction: float
    low: float
    high: float
    rank_error: float


class NoisyBar(_Frozen):
    """The share of the values that are from ``low`` to ``high``."""

    low: float
    high: float
    share: Estimate


class NoisyNumber(_Frozen):
    """A column of numbers. ``missing``: the share of missing values. The rest needs a public ``range``.

    ``mean``, ``deviation``: null without a range, and if noise leaves nothing of them.
    """

    missing: Estimate
    range: tuple[float, float] | None = None
    mean: Estimate | None = None
    deviation: Estimate | None = None
    quantiles: tuple[NoisyQuantile, ...] = ()
    histogram: tuple[NoisyBar, ...] = ()


class NoisyCategory(_Frozen):
    """A column of categories: the shares of missing values, and of the values that the task declares."""

    missing: Estimate
    values: dict[str, Estimate]


class NoisyResult(_Frozen):
    """A survey with differential privacy. ``least``: see `Survey`. ``examples``: quantiles of the edges' numbers.

    ``share_error``: the standard error of a share. ``labels``: null if the task has no classes.
    """

    run: str
    task: str
    edges: int
    least: int
    masked: bool
    privacy: m.PrivacySpent
    share_error: float
    examples: tuple[NoisyQuantile, ...]
    labels: dict[str, Estimate] | None
    numbers: dict[str, NoisyNumber]
    categories: dict[str, NoisyCategory]


def noisy_result(
    found: Proportions,
    survey: Survey,
    plan: PrivacyPlan,
    spent: m.PrivacySpent,
    edges: int,
    run: str,
    task: str,
) -> NoisyResult:
    """Returns what a release of ``edges`` edges says. ``task``: with its options."""
    error = error_of_share(plan, spent.noise, found.weight, edges)
    sizes, _ = _adjusted(found.sizes, error)
    bounds = [size_bounds(place) for place in range(SIZES)]
    return NoisyResult(
        run=run,
        task=task,
        edges=edges,
        least=survey.least,
        masked=plan.mechanism == "distributed",
        privacy=spent,
        share_error=error,
        examples=_quantiles(sizes, bounds, SIZES, 1.0, 0.0, error),
        labels={name: Estimate(value=value, error=error) for name, value in found.classes.items()} or None,
        numbers={name: _number(one, survey.ranges.get(name), error) for name, one in found.numbers.items()},
        categories={name: _category(*one, error) for name, one in found.categories.items()},
    )


def _adjusted(proportions: Floats, error: float) -> tuple[Floats, float]:
    """Returns proportions that add up to 1, and the standard error of each."""
    count = len(proportions)
    return proportions + (1 - proportions.sum()) / count, error * math.sqrt(1 - 1 / count)


def _category(missing: float, values: Mapping[str, float], error: float) -> NoisyCategory:
    if values:
        (missing, *shares), error = _adjusted(np.array([missing, *values.values()]), error)
        values = dict(zip(values, map(float, shares), strict=True))
    return NoisyCategory(
        missing=Estimate(value=float(missing), error=error),
        values={name: Estimate(value=value, error=error) for name, value in values.items()},
    )


def _number(found: NumberProportions, limits: tuple[float, float] | None, error: float) -> NoisyNumber:
    if limits is None or found.bins is None:
        return NoisyNumber(missing=Estimate(value=found.missing, error=error))
    adjusted, of_share = _adjusted(np.append(found.missing, found.bins), error)
    missing, present, bins = float(adjusted[0]), 1 - float(adjusted[0]), adjusted[1:]
    known = NoisyNumber(missing=Estimate(value=missing, error=of_share), range=limits)
    if present < LEAST_PRESENT * error:
        return known
    mean, deviation = _moments(found, limits, present, error)
    ends = np.linspace(*limits, BINS + 1).tolist()
    bounds = list(itertools.pairwise(ends))
    return known.model_copy(
        update={
            "mean": mean,
            "deviation": deviation,
            "quantiles": _quantiles(bins, bounds, len(adjusted), present, of_share, error),
            "histogram": tuple(
                NoisyBar(low=low, high=high, share=Estimate(value=float(share), error=of_share))
                for (low, high), share in zip(bounds, bins, strict=True)
            ),
        }
    )


def _moments(
    found: NumberProportions, limits: tuple[float, float], present: float, error: float
) -> tuple[Estimate, Estimate | None]:
    """Returns the mean and the deviation. Their errors are those of quotients, to the first order of the noise."""
    assert found.first is not None
    assert found.second is not None
    low, high = limits
    middle, half = (low + high) / 2, (high - low) / 2
    first, second = found.first / present, found.second / present
    mean = Estimate(value=middle + half * first, error=half * error * math.hypot(1, first) / present)
    variance = second - first**2
    spread = error * math.hypot(1, 2 * first, second - 2 * first**2) / present
    if variance < LEAST_SPREAD * spread:
        return mean, None
    root = math.sqrt(variance)
    return mean, Estimate(value=half * root, error=half * spread / (2 * root))


def _quantiles(
    shares: Floats,
    bounds: Sequence[tuple[float, float]],
    count: int,
    total: float,
    total_error: float,
    error: float,
) -> tuple[NoisyQuantile, ...]:
    """Returns the quantiles of values of which ``shares`` are in bins, ``total`` together.

    ``count``: how many proportions were adjusted together; the sum of k of them has the variance k (count - k) / count
    times that of one before.
    """
    below, found = np.cumsum(shares), []
    for fraction in FRACTIONS:
        reached = np.flatnonzero(below >= fraction * total)
        place = int(reached[0]) if len(reached) else len(shares) - 1
        of_sum = error * math.sqrt((place + 1) * (count - place - 1) / count)
        low, high = bounds[place]
        rank_error = math.hypot(of_sum, fraction * total_error) / total
        found.append(NoisyQuantile(fraction=fraction, low=low, high=high, rank_error=rank_error))
    return tuple(found)
