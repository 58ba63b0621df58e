"""The result of a survey: what the sums of the federation say, without cells of a few examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from fl_aggregator.configuration.survey import Survey
from fl_aggregator.tools.survey.cells import Cells, cells_of, is_small, shown
from fl_shared.survey.bins import bins_of
from fl_shared.survey.layout import NumberSums, Sums

FRACTIONS: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the quantiles."""
BARS: Final = 20
"""Bars of a histogram, at most."""
_MISSING: Final = ""
"""The cell of missing values, if there are few. It is never shown; no value has this name."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quantile(_Frozen):
    """The value below which a ``fraction`` of all values lies: within ``error`` of ``value``, half a bin's width."""

    fraction: float
    value: float
    error: float


class Bar(_Frozen):
    """How many values are from ``low`` to ``high``; the ends of the outer bars are null, since they are somebody's."""

    low: float | None
    high: float | None
    values: int


class NumberColumn(_Frozen):
    """A column of numbers. ``moved``: how many values were outside of its public ``range``, and count as its ends.

    ``deviation``: the root of the mean squared distance to the mean. What is null is not shown: too few examples.
    """

    values: int | None
    missing: int | None
    range: tuple[float, float] | None = None
    moved: int | None = None
    mean: float | None = None
    deviation: float | None = None
    quantiles: tuple[Quantile, ...] = ()
    histogram: tuple[Bar, ...] = ()


class CategoryColumn(_Frozen):
    """A column of categories, with those of its values that the task declares; null if it declares none."""

    values: int | None
    missing: int | None
    cells: Cells | None


class Result(_Frozen):
    """A survey. ``edges``: of how many edges the sums are. ``least``, ``cells``: see `Survey`.

    ``labels``: null if the task has no classes. ``figures``: by edge, what it has told of itself.
    """

    run: str
    task: str
    edges: int
    examples: int
    least: int
    cells: int
    masked: bool
    labels: Cells | None
    numbers: dict[str, NumberColumn]
    categories: dict[str, CategoryColumn]
    figures: dict[str, dict[str, float]] = {}


def result_of(
    sums: Sums, survey: Survey, run: str, task: str, *, masked: bool, figures: dict[str, dict[str, float]]
) -> Result:
    """Returns what the sums say. ``task``: with its options."""
    return Result(
        run=run,
        task=task,
        edges=sums.edges,
        examples=sums.examples,
        least=survey.least,
        cells=survey.cells,
        masked=masked,
        labels=cells_of(sums.classes, survey.cells) if sums.classes else None,
        numbers={name: _number(column, name, survey) for name, column in sums.numbers.items()},
        categories={
            name: CategoryColumn(
                **_present(count, missing, survey.cells),
                cells=cells_of(_with_missing(values, missing, survey.cells), survey.cells)
                if values
                else None,
            )
            for name, (count, missing, values) in sums.categories.items()
        },
        figures=figures,
    )


def _present(values: int, missing: int, least: int) -> dict[str, int | None]:
    """Returns both numbers, or neither: with the number of examples, each of them tells the other."""
    if is_small(values, least) or is_small(missing, least):
        return {"values": None, "missing": None}
    return {"values": values, "missing": missing}


def _with_missing(values: Mapping[str, int], missing: int, least: int) -> dict[str, int]:
    """Returns the cells of a category's values; few missing ones are a cell among them that is not shown.

    Otherwise their number would be what is left of all examples without the values.
    """
    return {**values, _MISSING: missing} if is_small(missing, least) else {**values}


def _number(column: NumberSums, name: str, survey: Survey) -> NumberColumn:
    moments, least = column.moments, survey.cells
    present = _present(moments.count, column.missing, least)
    limits = survey.ranges.get(name)
    if moments.count < max(least, 1):
        return NumberColumn(**present, range=limits)
    return NumberColumn(
        **present,
        range=limits,
        moved=shown(column.moved, least) if limits is not None else None,
        mean=moments.mean,
        deviation=moments.deviation,
        quantiles=_quantiles(column, name, survey),
        # The bars add up to the number of values.
        histogram=() if present["values"] is None else _histogram(column, name, survey),
    )


def _quantiles(column: NumberSums, name: str, survey: Survey) -> tuple[Quantile, ...]:
    """Returns the quantiles that have enough values on both sides."""
    edges, below = bins_of(name, survey.terms).edges, np.cumsum(column.histogram)
    total, found = int(below[-1]), []
    for fraction in FRACTIONS:
        rank = max(1, math.ceil(fraction * total))
        if min(rank, total - rank) < survey.cells:
            continue
        low, high = edges[(place := int(np.searchsorted(below, rank))) : place + 2].tolist()
        found.append(Quantile(fraction=fraction, value=(low + high) / 2, error=(high - low) / 2))
    return tuple(found)


def _histogram(column: NumberSums, name: str, survey: Survey) -> tuple[Bar, ...]:
    """Returns bars of about as many values each, so that none has too few."""
    edges, total = bins_of(name, survey.terms).edges, int(column.histogram.sum())
    enough = max(survey.cells, math.ceil(total / BARS))
    ends, counts, count = [], [], 0
    for place in np.flatnonzero(column.histogram):
        count += int(column.histogram[place])
        if count >= enough:
            ends.append(float(edges[place + 1]))
            counts.append(count)
            count = 0
    if counts:
        counts[-1] += count
        ends.pop()
    bounds = [None, *ends, None]
    return tuple(
        Bar(low=bounds[index], high=bounds[index + 1], values=count) for index, count in enumerate(counts)
    )
