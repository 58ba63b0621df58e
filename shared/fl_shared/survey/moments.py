"""Σx and Σx² of many numbers as exact whole numbers, in units of 2^-40 and 2^-80.

So the deviation that follows from them loses nothing by cancellation, whatever the mean is, and does not depend on
the order of the numbers, nor on how they lie on edges. Numbers are rounded once, to 2^-40. The idea of a wide
accumulator in fixed point is Kulisch's ("Computer Arithmetic and Validity", 2008, chapter 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray

PLACES: Final = 40
"""Binary places of a number: it is rounded to 2^-40, about 10^-12."""
LARGEST: Final = 2.0**60
"""The largest magnitude of a number, about 10^18."""
SUM_DIGITS: Final = 13
SQUARES_DIGITS: Final = 23
"""Digits of both sums, which have room for 2^28 numbers of an edge (see `digits`)."""
_LIMB_BITS: Final = 20
_LIMBS: Final = 5
_BLOCK: Final = 2**16
"""Numbers at a time. A sum of 2^22 products of two limbs fits into 63 bits."""
_ROOT_BITS: Final = 64


@dataclass(frozen=True, slots=True)
class Moments:
    """How many numbers there are, and their sums: ``total`` × 2^-40 and ``squares`` × 2^-80."""

    count: int
    total: int
    squares: int

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> Moments:
        """Returns those of finite ``values`` of at most `LARGEST` in magnitude, shape (values,)."""
        total = squares = 0
        for start in range(0, len(values), _BLOCK):
            rounded = np.rint(values[start : start + _BLOCK] * 2.0**PLACES)
            limbs, sign = _limbs_of(np.abs(rounded)), np.sign(rounded).astype(np.int64)
            for i, limb in enumerate(limbs):
                total += int((sign * limb).sum()) << (_LIMB_BITS * i)
                for j in range(i, _LIMBS):
                    product = int((limb * limbs[j]).sum()) << (_LIMB_BITS * (i + j))
                    squares += product if i == j else 2 * product
        return cls(len(values), total, squares)

    @property
    def mean(self) -> float:
        """Their mean. There must be at least one."""
        return float(Fraction(self.total, self.count << PLACES))

    @property
    def deviation(self) -> float:
        """Their standard deviation, the root of the mean squared distance to the mean."""
        spread = self.count * self.squares - self.total**2  # × count² × 2^80
        if spread <= 0:
            return 0.0
        root = isqrt(spread << (2 * _ROOT_BITS))
        return float(Fraction(root, (self.count << PLACES) << _ROOT_BITS))


def _limbs_of(magnitudes: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Returns whole numbers below 2^101 as numbers of 20 bits (the last one 21), the least significant first."""
    limbs: list[NDArray[np.int64]] = []
    left = magnitudes
    for index in reversed(range(_LIMBS)):
        scale = 2.0 ** (_LIMB_BITS * index)
        limb = np.floor(left / scale)
        left = left - limb * scale  # exact: both are multiples of the last place of ``left``
        limbs.insert(0, limb.astype(np.int64))
    return limbs
