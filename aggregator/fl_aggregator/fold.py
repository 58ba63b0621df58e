"""The exact sum of a round's updates: fixed point in int64, so that order and grouping cannot change a bit.

Σ round(examples × delta × 2^scale_bits). The product is exact in float64 (an integer below 2^29, say, times
24 bits of float32) or correctly rounded; scaling by a power of two is exact; rounding is to the nearest
integer, halves to even. The caps on examples and deltas make an overflow impossible for the number of updates
that ``scale_bits`` was computed for.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors import Vector

BLOCK: Final = 32_768
"""Values at a time: a block and its intermediate stay in the cache."""


class ExactSum:
    """Adds updates of ``values`` float32 values each, at most ``slots`` of them."""

    def __init__(self, values: int, scale_bits: int, slots: int) -> None:
        self._sum = np.zeros(values, dtype=np.int64)
        self._scale_bits = scale_bits
        self._slots = slots
        self._scratch = np.empty(min(values, BLOCK), dtype=np.float64)
        self._integers = np.empty(min(values, BLOCK), dtype=np.int64)
        self.examples = 0
        self.folded = 0

    def add(self, delta: Vector, examples: int) -> None:
        """Adds ``examples`` × ``delta`` (shape (values,)). The caller has checked both against their caps."""
        if delta.shape != self._sum.shape:
            raise ValueError(f"delta has shape {delta.shape}, expected {self._sum.shape}")
        if self.folded == self._slots:
            raise ValueError(f"all {self._slots} slots of the sum are used")
        factor = float(examples) * 2.0**self._scale_bits
        for start in range(0, len(delta), BLOCK):
            block = delta[start : start + BLOCK]
            scaled = self._scratch[: len(block)]
            integers = self._integers[: len(block)]
            np.multiply(block, factor, out=scaled, dtype=np.float64)
            np.rint(scaled, out=scaled)
            np.copyto(integers, scaled, casting="unsafe")
            self._sum[start : start + BLOCK] += integers
        self.examples += examples
        self.folded += 1

    def mean(self) -> NDArray[np.float64]:
        """The weighted mean, shape (values,), float64: sum ÷ (2^scale_bits × Σ examples)."""
        if self.examples == 0:
            raise ValueError("nothing was folded")
        mean: NDArray[np.float64] = np.ldexp(self._sum.astype(np.float64), -self._scale_bits)
        mean /= float(self.examples)
        return mean
