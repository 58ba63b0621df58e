"""The bins of a column's histogram, which all edges know without having seen each other's data.

Without a range, the bins are those of DDSketch (Masson, Rim and Lee 2019, arXiv:1908.10693, section 2): each is wider
than the one before by the same factor, so that a quantile has the same relative error everywhere. With a range that
is public they are equally wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from fl_shared.survey.terms import SurveyTerms

Floats = NDArray[np.float64]

PER_OCTAVE: Final = 16
FACTOR: Final = 2.0 ** (1 / PER_OCTAVE)
"""How much wider each bin is than the one before: a quantile is at most 2.2 % off."""
FIRST_EXPONENT, LAST_EXPONENT = -30, 50
"""Magnitudes below 2^-30 count as 0, those from 2^50 on as that."""
RANGE_BINS: Final = 256
"""Bins of a column with a public range."""


class Bins(Protocol):
    """The bins of a histogram, in ascending order of the values in them."""

    @property
    def edges(self) -> Floats:
        """Where each bin begins, and where the last one ends, shape (bins + 1,), ascending."""
        ...

    def places(self, values: Floats) -> NDArray[np.intp]:
        """Returns the bin of each of ``values``, which are finite."""
        ...


class RelativeBins:
    """Bins of equal relative width: negative numbers, the largest first, then 0, then positive ones."""

    _OCTAVES: Final = LAST_EXPONENT - FIRST_EXPONENT
    _HALF: Final = _OCTAVES * PER_OCTAVE

    @cached_property
    def _magnitudes(self) -> Floats:
        octaves = np.arange(FIRST_EXPONENT, LAST_EXPONENT)[:, None]
        lower = np.ldexp(2.0 ** (np.arange(PER_OCTAVE) / PER_OCTAVE), octaves).reshape(-1)
        return np.append(lower, 2.0**LAST_EXPONENT)

    @cached_property
    def edges(self) -> Floats:
        """See `Bins.edges`."""
        return np.concatenate([-self._magnitudes[::-1], self._magnitudes])

    def places(self, values: Floats) -> NDArray[np.intp]:
        """See `Bins.places`."""
        place = np.searchsorted(self._magnitudes, np.abs(values), side="right")
        place = np.minimum(place, self._HALF)
        return (self._HALF + np.where(values < 0, -place, place)).astype(np.intp)


@dataclass(frozen=True)
class EqualBins:
    """Bins of equal width from ``low`` to ``high``; values outside count in the outer bins."""

    low: float
    high: float

    @cached_property
    def edges(self) -> Floats:
        """See `Bins.edges`."""
        return np.linspace(self.low, self.high, RANGE_BINS + 1)

    def places(self, values: Floats) -> NDArray[np.intp]:
        """See `Bins.places`."""
        place = np.searchsorted(self.edges, values, side="right") - 1
        return np.clip(place, 0, RANGE_BINS - 1).astype(np.intp)


RELATIVE: Final = RelativeBins()


def bins_of(column: str, terms: SurveyTerms) -> Bins:
    """Returns the bins of a column's histogram."""
    return EqualBins(*terms.ranges[column]) if column in terms.ranges else RELATIVE
