"""Updates as private runs clip them, whole."""

from __future__ import annotations

import numpy as np

from fl_shared.privacy.clipping import clipped
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.fixed_point import BLOCK
from fl_shared.tensors.manifest import Vector


def clip_to_grid(delta: Vector, clip: float, scale_bits: int) -> Int64s:
    """The integers of ``delta``, shape (values,), clipped, in units of 2^-``scale_bits``. Raises as `clipped` does."""
    quantize = clipped(delta, clip, scale_bits)
    integers = np.empty(len(delta), np.int64)
    for start in range(0, len(delta), BLOCK):
        quantize(start, integers[start : start + BLOCK])
    return integers
