"""The encoding ``bf16``: the upper half of each float32, rounded to the nearest, halves to even.

A value keeps the range of float32 and 8 bits of its significand: the relative error is at most 2^-8 (of normal values).
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from fl_shared.tensors.encodings.interface import BLOCK, Buffer, NotFiniteError, TooLargeError, exactly
from fl_shared.tensors.manifest import Vector

_DTYPE: Final = np.dtype("<u2")
_MAGNITUDE: Final = np.uint16(0x7FFF)
_INFINITY: Final = 0x7F80
_QUIET: Final = np.uint32(0x40)


class BFloat16:
    """The encoding ``bf16``."""

    name: Literal["bf16"] = "bf16"
    lossy = True
    feedback = False

    def sizes(self, values: int) -> range:
        """Two bytes for each value."""
        return exactly(values * _DTYPE.itemsize)

    def encode(self, vector: Vector, seed: int) -> memoryview:  # noqa: ARG002  it rounds to the nearest
        """The bytes of ``vector``. What is above the largest value of the format becomes infinite."""
        bits = np.ascontiguousarray(vector, np.float32).view(np.uint32)
        encoded = np.empty(len(bits), _DTYPE)
        for start in range(0, len(bits), BLOCK):
            block = bits[start : start + BLOCK]
            upper = block >> np.uint32(16)
            rounded = (block + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
            # Rounding would carry a NaN into the sign.
            nan = (block & np.uint32(0x7FFF_FFFF)) > np.uint32(_INFINITY << 16)
            encoded[start : start + BLOCK] = np.where(nan, upper | _QUIET, rounded)
        return encoded.view(np.uint8).data

    def decode_block(self, data: Buffer, values: int, start: int, out: Vector) -> None:
        """See `Encoding.decode_block`. Exact: every value of the format is a float32."""
        bits = out.view(np.uint32)
        bits[:] = np.frombuffer(data, _DTYPE, values)[start : start + len(out)]
        np.left_shift(bits, np.uint32(16), out=bits)

    def check(self, data: Buffer, values: int, most: float) -> float:
        """The largest magnitude. Magnitudes are in the order of their bits, so that nothing is decoded for it."""
        bits = np.frombuffer(data, _DTYPE, values)
        largest = 0
        for start in range(0, values, BLOCK):
            magnitudes = bits[start : start + BLOCK] & _MAGNITUDE
            largest = int(max(largest, magnitudes.max()))
            if largest >= _INFINITY:
                index = start + int(np.argmax(magnitudes >= _INFINITY))
                raise NotFiniteError(index, _value(int(bits[index])))
        found = _value(largest)
        if found > most:
            raise TooLargeError(found)
        return found


def _value(bits: int) -> float:
    return float(np.uint32(bits << 16).view(np.float32))


BFLOAT16: Final = BFloat16()
