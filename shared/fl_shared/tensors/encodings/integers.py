"""The encoding ``sum``: consecutive little-endian int64 values, the sums in fixed point of regional aggregators."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors.encodings.interface import Buffer, TooLargeError, exactly
from fl_shared.tensors.manifest import Vector

_DTYPE: Final = np.dtype("<i8")
Int64s = NDArray[np.int64]


class Integers:
    """The encoding ``sum``. No edge offers it, and no run asks for it: it carries integers, not a vector of floats."""

    name: Literal["sum"] = "sum"
    lossy = False
    """Of its integers: so buffers are among them."""
    feedback = False

    def sizes(self, values: int) -> range:
        """Eight bytes for each value."""
        return exactly(values * _DTYPE.itemsize)

    def of_integers(self, integers: Int64s) -> memoryview:
        """The bytes of ``integers``, shape (values,); a view of them where possible."""
        return np.ascontiguousarray(integers, _DTYPE).view(np.uint8).data

    def integers(self, data: Buffer) -> Int64s:
        """The integers in ``data``, a view of it where possible. Raises ``ValueError`` for a wrong length."""
        if len(data) % _DTYPE.itemsize:
            raise ValueError(f"{len(data)} bytes, expected a multiple of {_DTYPE.itemsize}")
        return np.frombuffer(data, _DTYPE).astype(np.int64, copy=False)

    def encode(self, vector: Vector, seed: int) -> memoryview:  # noqa: ARG002  nothing here is random
        """The bytes of the nearest integers."""
        return self.of_integers(np.rint(vector).astype(np.int64))

    def decode_block(self, data: Buffer, values: int, start: int, out: Vector) -> None:
        """Writes the integers from ``start`` on to ``out``, rounded to float32."""
        out[:] = np.frombuffer(data, _DTYPE, values)[start : start + len(out)]

    def check(self, data: Buffer, values: int, most: float) -> float:
        """The largest magnitude in ``data``. Raises `TooLargeError`."""
        integers = np.frombuffer(data, _DTYPE, values)
        largest = float(max(int(integers.max(initial=0)), -int(integers.min(initial=0))))
        if largest > most:
            raise TooLargeError(largest)
        return largest


SUM: Final = Integers()
