"""Whole numbers as digits of 10 bits, each a float32: sums of digits are exact where those of numbers are not.

A digit has the sign of its number, so the sum of the same digit of 2^14 edges is below 2^24 in magnitude, which float32
holds exactly. Only the last digit takes whatever is left of a large number.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fl_shared.tensors.manifest import Vector

BITS: Final = 10
MOST_SUMMED: Final = 2**14
"""The most edges whose digits add up exactly."""


def to_digits(number: int, count: int) -> Vector:
    """Returns ``count`` digits of ``number``, the least significant first, shape (count,)."""
    sign, left = (-1, -number) if number < 0 else (1, number)
    digits = np.empty(count, np.float32)
    for index in range(count - 1):
        digits[index] = sign * (left & (2**BITS - 1))
        left >>= BITS
    digits[-1] = sign * left
    return digits


def from_digits(digits: Vector) -> int:
    """Returns the number with these digits, or the sum of the numbers of which ``digits`` is the sum."""
    return sum(round(float(digit)) << (BITS * index) for index, digit in enumerate(digits))
