"""The encoding ``q8``: 8-bit integers in blocks of 256 values, each block with a scale of its own.

With s = max |x| / 127 over a block, x becomes q = ⌊x/s + u⌋, u uniform in (0, 1): stochastic rounding, whose mean is
x/s (QSGD: Alistarh et al. 2017, arXiv:1610.02132, with a scale for each block and the largest magnitude as the norm).
q × s is decoded. The error is below s, and errors of many edges cancel.

The data are the scales (little-endian float32, one for each block), and then the integers (int8, one for each value).
-128 is not used.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors.encodings.interface import (
    BLOCK,
    Buffer,
    MalformedError,
    NotFiniteError,
    TooLargeError,
    exactly,
)
from fl_shared.tensors.manifest import Vector

VALUES: Final = 256
"""Values with one scale."""
_SCALE: Final = np.dtype("<f4")
_MOST: Final = 127
_UNIT: Final = np.float32(2.0**-16)


class Int8:
    """The encoding ``q8``."""

    name: Literal["q8"] = "q8"
    lossy = True
    feedback = False

    def sizes(self, values: int) -> range:
        """A byte for each value, and four for each block that has begun."""
        return exactly(_size(values))

    def encode(self, vector: Vector, seed: int) -> memoryview:
        """The bytes of ``vector``; PCG64 with ``seed`` says how values are rounded."""
        values = len(vector)
        encoded = np.empty(_size(values), np.uint8)
        scales, integers = _parts(encoded.data, values)
        generator = np.random.PCG64(seed)
        for start in range(0, values, BLOCK):
            block = vector[start : start + BLOCK]
            rows = np.zeros((_blocks(len(block)), VALUES), np.float32)
            rows.reshape(-1)[: len(block)] = block
            largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
            scale = largest / np.float32(_MOST)
            scales[start // VALUES :][: len(scale)] = scale
            divisor = np.where(scale > 0, scale, np.float32(1))
            with np.errstate(invalid="ignore"):  # of what is not finite, the scale tells
                rows /= divisor[:, None]
                rows += _uniform(generator, rows.size).reshape(rows.shape)
                np.floor(rows, out=rows)
                np.clip(rows, -_MOST, _MOST, out=rows)
                integers[start : start + BLOCK] = rows.reshape(-1)[: len(block)].astype(np.int8)
        return encoded.data

    def decode_block(self, data: Buffer, values: int, start: int, out: Vector) -> None:
        """See `Encoding.decode_block`."""
        scales, integers = _parts(data, values)
        stop = start + len(out)
        first = start // VALUES
        out[:] = integers[start:stop]
        head = min(stop, (first + 1) * VALUES) - start if start % VALUES else 0
        out[:head] *= scales[first]
        first += bool(head)
        whole = (len(out) - head) // VALUES
        rows = out[head : head + whole * VALUES].reshape(whole, VALUES)
        rows *= scales[first : first + whole, None]
        if rest := len(out) - head - rows.size:
            out[-rest:] *= scales[first + whole]

    def check(self, data: Buffer, values: int, most: float) -> float:
        """127 times the largest scale: the value with the largest magnitude of a block becomes ±127."""
        scales, integers = _parts(data, values)
        if not values:
            return 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            greatest = scales * np.float32(_MOST)  # rounded as what is decoded; NaN carries over
        largest = float(greatest.max())
        if not np.isfinite(largest):
            index = int(np.argmin(np.isfinite(greatest)))
            raise NotFiniteError(index * VALUES, float(greatest[index]))
        if (least := float(scales.min())) < 0:
            raise MalformedError(
                f"the scale of block {int(scales.argmin())} is {least:g}, expected at least 0"
            )
        if integers.min() < -_MOST:
            raise MalformedError(
                f"value {int(integers.argmin())} is the integer -128, expected at least -127"
            )
        if largest > most:
            raise TooLargeError(largest)
        return largest


def _blocks(values: int) -> int:
    return -(-values // VALUES)


def _size(values: int) -> int:
    return values + _SCALE.itemsize * _blocks(values)


def _parts(data: Buffer, values: int) -> tuple[Vector, NDArray[np.int8]]:
    blocks = _blocks(values)
    return (
        np.frombuffer(data, _SCALE, blocks),
        np.frombuffer(data, np.int8, values, blocks * _SCALE.itemsize),
    )


def _uniform(generator: np.random.PCG64, values: int) -> Vector:
    """Numbers uniform in (0, 1), with 16 bits each. Raw bits are the same with every version of NumPy."""
    bits = generator.random_raw(values // 4).astype("<u8", copy=False).view("<u2")
    numbers: Vector = bits.astype(np.float32)
    numbers += np.float32(0.5)
    numbers *= _UNIT
    return numbers


INT8: Final = Int8()
