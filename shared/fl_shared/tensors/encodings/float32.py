"""The encoding ``f32``: consecutive little-endian IEEE 754 binary32 values, without loss."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from fl_shared.tensors.encodings.interface import Buffer, NotFiniteError, TooLargeError, exactly
from fl_shared.tensors.manifest import Vector, magnitude

_DTYPE: Final = np.dtype("<f4")


class Float32:
    """The encoding ``f32``. On a little-endian processor, `encode` and `decode` return views."""

    name: Literal["f32"] = "f32"
    lossy = False
    feedback = False

    def size(self, values: int) -> int:
        """Four bytes for each value."""
        return values * _DTYPE.itemsize

    def sizes(self, values: int) -> range:
        """`size` alone."""
        return exactly(self.size(values))

    def encode(self, vector: Vector, seed: int) -> memoryview:  # noqa: ARG002  nothing here is random
        """The bytes of ``vector``; a view of it where possible."""
        return np.ascontiguousarray(vector, _DTYPE).view(np.uint8).data

    def decode(self, data: Buffer) -> Vector:
        """The values in ``data``; a view of it where possible. Raises ``ValueError`` for a part of a value."""
        if len(data) % _DTYPE.itemsize:
            raise ValueError(f"{len(data)} bytes, expected a multiple of {_DTYPE.itemsize}")
        return np.frombuffer(data, _DTYPE).astype(np.float32, copy=False)

    def decode_block(self, data: Buffer, values: int, start: int, out: Vector) -> None:
        """Copies the values from ``start`` on to ``out``."""
        out[:] = np.frombuffer(data, _DTYPE, values)[start : start + len(out)]

    def check(self, data: Buffer, values: int, most: float) -> float:
        """The largest magnitude in ``data``, found without a temporary vector.

        Raises `NotFiniteError` or `TooLargeError`.
        """
        vector = np.frombuffer(data, _DTYPE, values)
        largest = magnitude(vector)
        if not np.isfinite(largest):
            index = int(np.argmin(np.isfinite(vector)))
            raise NotFiniteError(index, float(vector[index]))
        if largest > most:
            raise TooLargeError(largest)
        return largest


FLOAT32: Final = Float32()
