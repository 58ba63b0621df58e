"""An encoding that the product does not have: only an encoding may know how long a value is."""

from __future__ import annotations

import numpy as np

from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.interface import Buffer, exactly
from fl_shared.tensors.manifest import Vector


class Float16:
    """``f16``: little-endian binary16."""

    name = "f16"
    lossy = True
    feedback = False

    def sizes(self, values: int) -> range:
        return exactly(2 * values)

    def encode(self, vector: Vector, seed: int) -> memoryview:  # noqa: ARG002  it rounds to the nearest
        return vector.astype("<f2").view(np.uint8).data

    def decode(self, data: Buffer) -> Vector:
        return np.frombuffer(data, "<f2").astype(np.float32)

    def decode_block(self, data: Buffer, values: int, start: int, out: Vector) -> None:
        out[:] = np.frombuffer(data, "<f2", values)[start : start + len(out)]

    def check(self, data: Buffer, values: int, most: float) -> float:
        return FLOAT32.check(FLOAT32.encode(self.decode(data), seed=0), values, most)
