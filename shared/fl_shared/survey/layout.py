"""The vector of sums of a survey: which arrays it has, what an edge puts into them, and what their sums say.

=====================  ==========================================================================================
array                  content
=====================  ==========================================================================================
``survey.edges``       1, so that the sum is the number of edges
``survey.examples``    the number of examples, as digits
``class.NAME``         the examples of this class, as digits
``number.NAME``        of a column of numbers: how many values, missing ones, and values moved into the range, Σx and
                       Σx² (`moments`), all as digits, and then the values in each bin (`bins`)
``category.NAME``      of a column of categories: how many values and missing ones, as digits
``value.K.NAME``       the examples with this value of the K-th category, in ascending order, as digits
=====================  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from fl_shared.survey.bins import Floats, bins_of
from fl_shared.survey.digits import from_digits, to_digits
from fl_shared.survey.moments import LARGEST, SQUARES_DIGITS, SUM_DIGITS, Moments
from fl_shared.survey.terms import SurveyTerms
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector, flatten, unflatten

EDGES: Final = "survey.edges"
EXAMPLES: Final = "survey.examples"
CLASS, NUMBER, CATEGORY, VALUE = "class.", "number.", "category.", "value."
COUNT_DIGITS: Final = 3
MOST_VALUES: Final = 2**28
"""The most values of an edge in a column. A bin is one float32, exact to 2^24 and then to 24 bits."""
_NUMBER_HEAD: Final = 3 * COUNT_DIGITS + SUM_DIGITS + SQUARES_DIGITS


@dataclass(frozen=True, slots=True)
class Columns:
    """What is surveyed: the ``classes`` of the labels, columns of ``numbers``, and of ``categories`` with values.

    A category without values is only looked at for missing ones.
    """

    classes: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def manifest(self, terms: SurveyTerms) -> Manifest:
        """Returns the arrays of the vector."""
        sizes = {EDGES: 1, EXAMPLES: COUNT_DIGITS}
        sizes |= {CLASS + name: COUNT_DIGITS for name in self.classes}
        sizes |= {NUMBER + name: _NUMBER_HEAD + len(bins_of(name, terms).edges) - 1 for name in self.numbers}
        for index, (name, values) in enumerate(sorted(self.categories.items())):
            sizes[CATEGORY + name] = 2 * COUNT_DIGITS
            sizes |= {f"{VALUE}{index}.{value}": COUNT_DIGITS for value in values}
        return Manifest(arrays=tuple(ArraySpec(name=name, shape=(sizes[name],)) for name in sorted(sizes)))

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Returns what the names of the arrays tell. Names that tell nothing are ignored."""
        names = [array.name for array in manifest.arrays]
        categories = _named(CATEGORY, names)
        values = {name: _named(f"{VALUE}{index}.", names) for index, name in enumerate(categories)}
        return cls(_named(CLASS, names), _named(NUMBER, names), values)

    def difference(self, run: Columns) -> str | None:
        """Says how an edge's own columns differ from those of the run; null if they do not."""
        for kind, own, others in (
            ("class", self.classes, run.classes),
            ("column of numbers", self.numbers, run.numbers),
            ("column of categories", self.categories, run.categories),
        ):
            for name in sorted(set(own) ^ set(others)):
                where = "is here, but not in the survey" if name in own else "is missing here"
                return f"{kind} {name!r} {where}; the survey has: {', '.join(sorted(others)) or 'none'}"
        for name, values in self.categories.items():
            if set(values) != set(run.categories[name]):
                return f"column {name!r}: the survey has the values {', '.join(run.categories[name]) or 'of any text'}"
        return None


@dataclass(frozen=True, slots=True, eq=False)
class NumberSums:
    """Of a column of numbers: ``missing`` values, those ``moved`` into the range, and how many are in each bin."""

    moments: Moments
    missing: int
    moved: int
    histogram: NDArray[np.int64] = field(repr=False)

    @classmethod
    def of(cls, values: Floats, column: str, terms: SurveyTerms) -> Self:
        """Returns those of one edge's ``values``, shape (values,); what is not finite is missing."""
        there = values[np.isfinite(values)].astype(np.float64)
        low, high = terms.ranges.get(column, (-LARGEST, LARGEST))
        kept, bins = np.clip(there, low, high), bins_of(column, terms)
        counts = np.bincount(bins.places(kept), minlength=len(bins.edges) - 1).astype(np.int64)
        return cls(Moments.of(kept), len(values) - len(there), int((kept != there).sum()), counts)

    def vector(self) -> Vector:
        """Returns them as an edge sends them."""
        counts = [to_digits(one, COUNT_DIGITS) for one in (self.moments.count, self.missing, self.moved)]
        sums = to_digits(self.moments.total, SUM_DIGITS), to_digits(self.moments.squares, SQUARES_DIGITS)
        return np.concatenate([*counts, *sums, self.histogram.astype(np.float32)])

    @classmethod
    def read(cls, vector: Vector) -> Self:
        """Returns what a vector, or a sum of such vectors, says."""
        sizes = np.cumsum([COUNT_DIGITS] * 3 + [SUM_DIGITS, SQUARES_DIGITS])
        *digits, histogram = np.split(vector, sizes)
        count, missing, moved, total, squares = map(from_digits, digits)
        return cls(Moments(count, total, squares), missing, moved, np.rint(histogram).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of one edge, or of a federation. ``categories``: by column, its values, missing ones, and each value."""

    edges: int
    examples: int
    classes: Mapping[str, int]
    numbers: Mapping[str, NumberSums]
    categories: Mapping[str, tuple[int, int, Mapping[str, int]]]

    def vector(self, manifest: Manifest) -> Vector:
        """Returns them as an edge sends them."""
        arrays = {EDGES: np.array([self.edges], np.float32), EXAMPLES: _digits(self.examples)}
        arrays |= {CLASS + name: _digits(count) for name, count in self.classes.items()}
        arrays |= {NUMBER + name: sums.vector() for name, sums in self.numbers.items()}
        for index, (name, (count, missing, values)) in enumerate(sorted(self.categories.items())):
            arrays[CATEGORY + name] = np.concatenate([_digits(count), _digits(missing)])
            arrays |= {f"{VALUE}{index}.{value}": _digits(number) for value, number in values.items()}
        return flatten(arrays, manifest)

    @classmethod
    def read(cls, vector: Vector, manifest: Manifest, terms: SurveyTerms) -> Self:
        """Returns what a vector, or a sum of such vectors, says. Raises ``ValueError`` if it is not of a survey."""
        columns = Columns.of(manifest)
        if columns.manifest(terms) != manifest:
            raise ValueError("the arrays are not those of a survey")
        arrays = unflatten(vector, manifest)
        categories = {}
        for index, (name, values) in enumerate(sorted(columns.categories.items())):
            count, missing = map(from_digits, np.split(arrays[CATEGORY + name], 2))
            counts = {value: from_digits(arrays[f"{VALUE}{index}.{value}"]) for value in values}
            categories[name] = count, missing, counts
        return cls(
            round(float(arrays[EDGES][0])),
            from_digits(arrays[EXAMPLES]),
            {name: from_digits(arrays[CLASS + name]) for name in columns.classes},
            {name: NumberSums.read(arrays[NUMBER + name]) for name in columns.numbers},
            categories,
        )


def _digits(number: int) -> Vector:
    return to_digits(number, COUNT_DIGITS)


def _named(prefix: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name.removeprefix(prefix) for name in names if name.startswith(prefix))
