"""Fixed point: weight × delta × 2^places as int64, which edges and aggregators must round alike.

The product is exact in float64 (a number of examples below 2^29, say, times 24 bits of float32) or correctly rounded;
scaling by a power of two is exact; rounding is to the nearest integer, halves to even.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.manifest import Vector

LEAST_PLACES: Final = 20
"""The fewest binary places with which a run begins."""
BLOCK: Final = 32_768
"""Values that are multiplied at a time: a block and its intermediate stay in the cache."""

_SHIFT: Final = 1.5 * 2.0**52
"""Adding it to a float64 of magnitude below 2^51 leaves the nearest integer, halves to even, in the low bits
of the result, whose bits are those of the shift plus that integer. So the processor's own addition rounds,
and no conversion from float to integer is needed, which has no vector form."""
SHIFT_BITS: Final = int(np.float64(_SHIFT).view(np.int64))
"""What `rounded` adds to each integer of a block that is shifted."""
_MAX_SHIFTABLE: Final = 2.0**51


def scale_bits_of(max_weight: float, max_delta: float, slots: int, bits: int = 64) -> int:
    """Returns the binary places of a sum: bits − 2 − ⌈log2(max_weight × max_delta × slots)⌉.

    So the sum of ``slots`` products within the caps, each rounded, is below 2^(bits − 1) in magnitude.
    """
    return bits - 2 - math.ceil(math.log2(max_weight * max_delta * slots))


def can_shift(largest: float, factor: float) -> bool:
    """Whether values of at most this magnitude may be rounded by a shift."""
    return largest * factor < _MAX_SHIFTABLE


def rounded(values: Vector, factor: float, scratch: NDArray[np.float64], *, shift: bool) -> Int64s:
    """The integers nearest to ``values`` × ``factor``, plus `SHIFT_BITS` if ``shift``; perhaps in ``scratch``.

    ``scratch`` has at least as many values. Modulo 2^64.
    """
    products = scratch[: len(values)]
    np.multiply(values, factor, out=products, dtype=np.float64)
    if shift:
        products += _SHIFT
        return products.view(np.int64)
    return np.rint(products, out=products).astype(np.int64)


class Quantizer:
    """Rounds ``delta`` × ``factor`` to integers, as many at a time as are asked for.

    ``factor``: weight × 2^places. ``largest``: the largest magnitude in ``delta``. All products must be below 2^63 in
    magnitude.
    """

    def __init__(self, delta: Vector, factor: float, largest: float) -> None:
        self._delta = delta
        self._factor = factor
        self._shift = can_shift(largest, factor)

    def __call__(self, start: int, out: Int64s) -> None:
        """Writes the integers from ``start`` on to ``out``, which says how many."""
        values = self._delta[start : start + len(out)]
        integers = rounded(values, self._factor, out.view(np.float64), shift=self._shift)
        np.subtract(integers, SHIFT_BITS if self._shift else 0, out=out)
