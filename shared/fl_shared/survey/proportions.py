"""The vector of a survey under a privacy budget: proportions of one edge's data, of length 1 at most.

An edge's proportions do not grow with its data, so each edge counts the same, and the sum of their vectors changes by
a length of at most 1 if one edge's vector is replaced by zeros. The vector has parts. None of them is longer than the
root of its weight, whatever the data are; all are divided by the root of the sum of the weights.

=====================  ====== =====================================================================================
array                  weight  content
=====================  ====== =====================================================================================
``survey.size``             1  1 in the place of the edge's number of examples (`SIZES`), otherwise 0
``class.NAME``              1  of the examples with a class, those of this one (all classes are one part)
``number.NAME``        3 or 1  of a column of numbers: the missing values; with a public range also the sums over its
                               values of u, of u², and those in each bin; all divided by the number of values, missing
                               ones included. u is a value on a scale from -1 to 1, the ends of the range
``category.NAME``           1  of a column of categories: the missing values
``value.K.NAME``               the values that are this one, in the part of their category
=====================  ====== =====================================================================================

The proportions of a class, and those of missing values and bins, are not negative and add up to 1 at most, so their
L2 norm is at most 1. The sums of u and u² are at most 1 each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Self

import numpy as np

from fl_shared.survey.bins import RANGE_BINS, Floats
from fl_shared.survey.layout import CATEGORY, CLASS, NUMBER, VALUE, Columns, NumberSums, Sums
from fl_shared.survey.moments import PLACES
from fl_shared.survey.terms import SurveyTerms
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector, flatten, unflatten

SIZE: Final = "survey.size"
SIZES: Final = 29
"""Places of a number of examples: that of n is its number of binary digits, and 28 at most."""
BINS: Final = 16
"""Bins of a column: noise adds up over bins, so that few are better than many."""
RANGED_WEIGHT: Final = 3


def size_bounds(place: int) -> tuple[int, int]:
    """Returns the least and the greatest number of examples at a place."""
    return (0, 0) if place == 0 else (2 ** (place - 1), 2**place - 1)


def weight_of(columns: Columns, terms: SurveyTerms) -> int:
    """Returns the sum of the weights of the parts: the vector before it is divided is no longer than its root."""
    numbers = sum(RANGED_WEIGHT if name in terms.ranges else 1 for name in columns.numbers)
    return 1 + bool(columns.classes) + numbers + len(columns.categories)


def manifest_of(columns: Columns, terms: SurveyTerms) -> Manifest:
    """Returns the arrays of the vector."""
    sizes = {SIZE: SIZES} | {CLASS + name: 1 for name in columns.classes}
    sizes |= {NUMBER + name: 3 + BINS if name in terms.ranges else 1 for name in columns.numbers}
    for index, (name, values) in enumerate(sorted(columns.categories.items())):
        sizes[CATEGORY + name] = 1
        sizes |= {f"{VALUE}{index}.{value}": 1 for value in values}
    return Manifest(arrays=tuple(ArraySpec(name=name, shape=(sizes[name],)) for name in sorted(sizes)))


def vector_of(sums: Sums, manifest: Manifest, terms: SurveyTerms) -> Vector:
    """Returns what an edge with these sums sends."""
    size = np.zeros(SIZES)
    size[min(sums.examples.bit_length(), SIZES - 1)] = 1
    arrays: dict[str, Floats] = {SIZE: size}
    labels = max(1, sum(sums.classes.values()))
    arrays |= {CLASS + name: np.array([count / labels]) for name, count in sums.classes.items()}
    for name, numbers in sums.numbers.items():
        arrays[NUMBER + name] = _of_numbers(numbers, terms.ranges.get(name))
    for index, (name, (count, missing, values)) in enumerate(sorted(sums.categories.items())):
        total = count + missing
        arrays[CATEGORY + name] = np.array([missing / total if total else 1.0])
        arrays |= {
            f"{VALUE}{index}.{value}": np.array([number / max(1, total)]) for value, number in values.items()
        }
    whole = weight_of(Columns.of(manifest), terms)
    return flatten({name: array / math.sqrt(whole) for name, array in arrays.items()}, manifest)


def _of_numbers(sums: NumberSums, limits: tuple[float, float] | None) -> Floats:
    count, total = sums.moments.count, sums.moments.count + sums.missing
    missing = sums.missing / total if total else 1.0
    if limits is None:
        return np.array([missing])
    if not count:
        return np.concatenate([[missing], np.zeros(2 + BINS)])
    low, high = map(Fraction, limits)
    middle, half = (low + high) / 2, (high - low) / 2
    mean = Fraction(sums.moments.total, count << PLACES)
    square = Fraction(sums.moments.squares, count << (2 * PLACES))
    # Values are rounded to 2^-40, which may be beyond the ends of a range that is not much wider.
    first = min(max((mean - middle) / half, Fraction(-1)), Fraction(1))
    second = min(max((square - 2 * middle * mean + middle**2) / half**2, Fraction(0)), Fraction(1))
    bins = sums.histogram.reshape(BINS, RANGE_BINS // BINS).sum(axis=1)
    moments = [float(first) * count, float(second) * count]
    return np.concatenate([[missing], np.array(moments) / total, bins / total])


@dataclass(frozen=True, slots=True, eq=False)
class NumberProportions:
    """Of a column of numbers. ``first``, ``second``, ``bins``: null without a range (see the table above)."""

    missing: float
    first: float | None = None
    second: float | None = None
    bins: Floats | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Proportions:
    """The mean of edges' proportions, as far as noise leaves it. ``sizes``: shape (SIZES,).

    ``weight``: see `weight_of`. ``categories``: by column, the missing values, and each value.
    """

    weight: int
    sizes: Floats
    classes: Mapping[str, float]
    numbers: Mapping[str, NumberProportions]
    categories: Mapping[str, tuple[float, Mapping[str, float]]]

    @classmethod
    def read(cls, vector: Vector, manifest: Manifest, terms: SurveyTerms) -> Self:
        """Returns what a mean of vectors says. Raises ``ValueError`` if it is not of such a survey."""
        columns = Columns.of(manifest)
        if manifest_of(columns, terms) != manifest:
            raise ValueError("the arrays are not those of a survey with noise")
        weight = weight_of(columns, terms)
        arrays = {
            name: array.astype(np.float64) * math.sqrt(weight)
            for name, array in unflatten(vector, manifest).items()
        }
        categories = {}
        for index, (name, values) in enumerate(sorted(columns.categories.items())):
            shares = {value: float(arrays[f"{VALUE}{index}.{value}"][0]) for value in values}
            categories[name] = float(arrays[CATEGORY + name][0]), shares
        return cls(
            weight,
            arrays[SIZE],
            {name: float(arrays[CLASS + name][0]) for name in columns.classes},
            {name: _read_numbers(arrays[NUMBER + name]) for name in columns.numbers},
            categories,
        )


def _read_numbers(array: Floats) -> NumberProportions:
    missing = float(array[0])
    if len(array) == 1:
        return NumberProportions(missing)
    return NumberProportions(missing, float(array[1]), float(array[2]), array[3:])
