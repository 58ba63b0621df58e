"""The exact sum of a round's updates: fixed point in int64, so that order and grouping cannot change a bit.

Σ round(weight × delta × 2^scale_bits), see `fixed_point`. The caps on weights and deltas make an overflow impossible
for the number of updates that ``scale_bits`` was computed for.

Buffers have a greater cap than parameters (a variance may be 10^9). A value above the cap of parameters is split into
a multiple of a power of two, counted in Python's integers of any size, and the rest, which is within that cap. So the
sum is as precise as it is for small values, and the splitting changes nothing for models without such values.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.section import Values
from fl_shared.tensors.fixed_point import BLOCK, SHIFT_BITS, can_shift, rounded
from fl_shared.tensors.manifest import Vector, magnitude


class ExactSum:
    """Adds updates of ``values`` float32 values each, at most ``slots`` of them.

    ``max_delta`` is the cap that ``scale_bits`` was computed for. Values above it are split; weights must be integers
    then. ``memory``: where the sum is made, shape (values,); new memory if it is null.
    """

    def __init__(
        self,
        values: int,
        scale_bits: int,
        slots: int,
        max_delta: float = math.inf,
        memory: Int64s | None = None,
    ) -> None:
        self._shifted = np.empty(values, dtype=np.int64) if memory is None else memory
        self._scale_bits = scale_bits
        self._slots = slots
        self._max_delta = max_delta
        self._step = 0.0 if math.isinf(max_delta) else 2.0 ** math.floor(math.log2(max_delta))
        self._multiples: defaultdict[int, Counter[int]] = defaultdict(Counter)
        """By the number of a block: Σ weight × (large value ÷ step, rounded), by index."""
        self._scratch = np.empty(min(values, BLOCK), dtype=np.float64)
        self.clear()

    def clear(self) -> None:
        """Removes all updates. The memory is kept: its first use would take as long as adding an update."""
        self._shifted[:] = 0
        self._shift_count = self.update_count = 0
        self._has_noise = False
        self._multiples.clear()

    def add(self, delta: Values, weight: float, max_magnitude: float | None = None, first: int = 0) -> None:
        """Adds ``weight`` × ``delta``, from its value ``first`` on. The caller has checked both against their caps.

        ``max_magnitude`` bounds the magnitudes in ``delta``, if that is already known. Raises ``ValueError`` if
        ``delta`` ends before the sum, or if all slots are used.
        """
        values = len(self._shifted)
        if len(delta) < first + values:
            raise ValueError(f"delta has {len(delta)} values, expected {first + values}")
        if self.update_count == self._slots:
            raise ValueError(f"all {self._slots} slots of the sum are used")
        factor = weight * 2.0**self._scale_bits
        if max_magnitude is None:
            max_magnitude = magnitude(delta[first : first + values])
        split = max_magnitude > self._max_delta
        max_magnitude = min(max_magnitude, self._max_delta)
        use_shift = can_shift(max_magnitude, factor)
        for start in range(0, values, BLOCK):
            block = delta[first + start : first + min(start + BLOCK, values)]
            if split:
                block = self._rest(block, start, int(weight))
            self._shifted[start : start + BLOCK] += rounded(block, factor, self._scratch, shift=use_shift)
        self._shift_count += use_shift
        self.update_count += 1

    def _rest(self, block: Vector, start: int, weight: int) -> Vector:
        """Adds up the multiples of the step in the large values of a block; returns the block without them."""
        large = np.flatnonzero(np.abs(block, dtype=np.float64) > self._max_delta)
        multiples = np.rint(block[large].astype(np.float64) / self._step)
        sums = self._multiples[start // BLOCK]
        for index, multiple in zip((large + start).tolist(), multiples.tolist(), strict=True):
            sums[index] += weight * int(multiple)
        rest = block.copy()
        rest[large] = block[large] - multiples * self._step  # exact
        return rest

    def merge(self, integers: Int64s, multiples: Mapping[int, int], update_count: int) -> None:
        """Adds a sum of ``update_count`` updates with the same binary places and cap: its `integers` and `multiples`.

        Raises ``ValueError`` for another shape, or if there are not as many slots left.
        """
        if integers.shape != self._shifted.shape:
            raise ValueError(f"the sum has shape {integers.shape}, expected {self._shifted.shape}")
        self.count(update_count)
        self._shifted += integers
        for index, multiple in multiples.items():
            self._multiples[index // BLOCK][index] += multiple

    def count(self, update_count: int) -> None:
        """Takes the integers of so many updates for added, which somebody else has added in the memory.

        Raises ``ValueError`` if there are not as many slots left.
        """
        if self.update_count + update_count > self._slots:
            raise ValueError(
                f"{update_count} updates more than {self.update_count} need over {self._slots} slots"
            )
        self.update_count += update_count

    def add_noise(self, noise: Callable[[int, int], NDArray[np.int64]]) -> None:
        """Adds noise, which counts as no update.

        ``noise`` returns the integers of the values from an index to before another.
        """
        self._has_noise = True
        for start in range(0, len(self._shifted), BLOCK):
            block = self._shifted[start : start + BLOCK]
            block += noise(start, start + len(block))

    def multiples(self) -> dict[int, int]:
        """Returns Σ weight × (large value ÷ step, rounded), by index, of the values that were split."""
        return {index: some for block in self._multiples.values() for index, some in block.items() if some}

    def integers(self, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """Returns Σ round(weight × delta × 2^scale_bits) of the values from ``start`` to ``stop``.

        Of values that were split, it is the sum of the rests.
        """
        # Modulo 2^64, as the shifts were added: the difference fits into int64.
        shift = (self._shift_count * SHIFT_BITS) % 2**64
        return self._shifted[start:stop] - np.uint64(shift).astype(np.int64)

    def over(self, divisor: float, start: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        """Returns the sum of the values from ``start`` to ``stop``, with that of the multiples, as float64.

        It is divided by 2^scale_bits × ``divisor``. Raises ``ValueError`` if nothing was added.
        """
        if self.update_count == 0 and not self._has_noise:
            raise ValueError("nothing was folded")
        total = self.integers(start, stop).astype(np.float64)
        stop = start + len(total)
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            for index, multiple in self._multiples.get(block, {}).items():
                if start <= index < stop:
                    total[index - start] += multiple * self._step * 2.0**self._scale_bits
        # The divisor is rounded at most once, so that one division rounds once.
        total /= divisor * 2.0**self._scale_bits
        return total
