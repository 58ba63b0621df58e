"""Combinations coordinate by coordinate. What an edge says about its number of examples plays no role.

Yin et al. 2018, "Byzantine-Robust Distributed Learning", arXiv:1803.01498.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

import numpy as np
from pydantic import Field

from fl_aggregator.aggregation.strategies.parts import Columns, Doubles


@dataclass(frozen=True, slots=True)
class Median:
    """The median of each coordinate (definition 1). Of an even number of updates, the mean of the two in the middle.

    Yin et al. 2018, arXiv:1803.01498.
    """

    def min_updates(self) -> int:
        return 3

    def combine(self, columns: Columns) -> Doubles:
        columns.sort(axis=1)
        return median_of(columns)


@dataclass(frozen=True, slots=True)
class TrimmedMean:
    """The mean of each coordinate without its ⌈βn⌉ smallest and ⌈βn⌉ largest values (definition 2).

    Yin et al. 2018, arXiv:1803.01498. ``beta``: the part that is cut on each side.
    """

    beta: Annotated[float, Field(gt=0, lt=0.5)] = 0.2

    def min_updates(self) -> int:
        return 3

    def combine(self, columns: Columns) -> Doubles:
        columns.sort(axis=1)
        count = columns.shape[1]
        cut = self.cut_of(count)
        return mean_of(columns[:, cut : count - cut])

    def cut_of(self, count: int) -> int:
        """Returns how many of ``count`` values are cut on each side."""
        # Of the decimal that was written: in float64, 0.07 × 100 is more than 7.
        return min(math.ceil(Fraction(str(self.beta)) * count), (count - 1) // 2)


def median_of(ascending: Columns) -> Doubles:
    """Returns the median of each row, which must be sorted."""
    count = ascending.shape[1]
    low, high = ascending[:, (count - 1) // 2], ascending[:, count // 2]
    return 0.5 * (low.astype(np.float64) + high)


def mean_of(columns: Columns | Doubles) -> Doubles:
    """Returns the mean of each row, added from the first column to the last, which no library may reorder."""
    total: Doubles = np.add.reduce(np.ascontiguousarray(columns.T), axis=0, dtype=np.float64)
    total /= columns.shape[1]
    return total
