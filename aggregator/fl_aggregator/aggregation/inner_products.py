"""Inner products of updates, the same to the last bit in any order and on any machine.

A sum of floats depends on its order, which is a library's choice. So these are sums of integers, which are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors.encodings.section import Values
from fl_shared.tensors.spans import Span, block_of, blocks

_MAX_BITS: Final = 19
"""Of the integers: a product has 38 bits, and a sum of a block of products 52, which float64 holds exactly."""


def gram(rows: Sequence[Values], where: Sequence[Span]) -> NDArray[np.float64]:
    """Returns the inner products of all pairs of ``rows`` over the values in ``where``, shape (rows, rows).

    Each row is rounded to integers of 19 bits of its own largest magnitude (fewer above 16 million values, 14 at 2^33).
    """
    values = sum(stop - start for start, stop in where)
    bits = min(_MAX_BITS, (62 - math.ceil(math.log2(max(values, 2)))) // 2)
    exponents = [bits - math.frexp(_magnitude(row, where))[1] for row in rows]
    total = np.zeros((len(rows), len(rows)), np.int64)
    for start, stop in blocks(where, block_of(len(rows))):
        block = np.empty((len(rows), stop - start), np.float64)
        for index, row in enumerate(rows):
            np.ldexp(row[start:stop], exponents[index], out=block[index], dtype=np.float64)
        np.rint(block, out=block)
        total += (block @ block.T).astype(np.int64)
    scales = np.ldexp(1.0, -np.array(exponents))
    products: NDArray[np.float64] = total.astype(np.float64) * scales[:, None] * scales[None, :]
    return products


def _magnitude(row: Values, where: Sequence[Span]) -> float:
    """Returns the largest magnitude; 1 if all are 0."""
    return max((float(np.abs(row[start:stop]).max()) for start, stop in blocks(where)), default=0.0) or 1.0
