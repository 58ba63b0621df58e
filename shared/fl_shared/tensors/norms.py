"""The length of an update, the same to the last bit in any order and on any machine.

A sum of floats depends on its order, which is a library's choice. So squares are added in lanes of a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors.encodings.section import Values
from fl_shared.tensors.spans import BLOCK, Span, blocks

_LANES: Final = 64


def norm(vector: Values | NDArray[np.floating], where: Sequence[Span]) -> float:
    """Returns the L2 norm of the values in ``where``: lanes are added front to back, and then exactly.

    It is within 2^-44 of the norm, relatively, for any finite float32 vector: the squares are exact in float64, and
    each is in 255 additions at most, which round by 2^-53.
    """
    parts: list[float] = []
    scratch = np.empty(BLOCK)
    for start, stop in blocks(where):
        squares = scratch[: stop - start]
        squares[:] = vector[start:stop]
        np.multiply(squares, squares, out=squares)
        whole = len(squares) // _LANES * _LANES
        parts += np.add.reduce(squares[:whole].reshape(-1, _LANES), axis=0).tolist()
        parts += squares[whole:].tolist()
    return math.sqrt(math.fsum(parts))
