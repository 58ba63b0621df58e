"""The encodings ``topk:RATIO``: the largest values in magnitude, with their places; the others count as 0.

What is not sent is added to the edge's next update (error feedback: Stich et al. 2018, arXiv:1809.07599; Karimireddy et
al. 2019, arXiv:1901.09847), so that nothing is lost for good.

The data are the places (little-endian uint32, ascending), and then the values (little-endian float32). There are
⌈RATIO × values⌉ of both. Of equal magnitudes, those that come first are sent.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.interface import (
    Buffer,
    Encoding,
    Family,
    MalformedError,
    NotFiniteError,
    exactly,
)
from fl_shared.tensors.manifest import Vector

_PLACE: Final = np.dtype("<u4")
MIN_RATIO: Final = 1e-6
MAX_RATIO: Final = 0.5
"""With more values, `f32` is smaller."""


class TopK:
    """The encoding ``topk:RATIO``."""

    lossy = True
    feedback = True

    def __init__(self, ratio: float) -> None:
        self.name = f"topk:{ratio!r}"
        self._ratio = ratio

    def sizes(self, values: int) -> range:
        """Eight bytes for each value that is sent."""
        return exactly(self._count(values) * (_PLACE.itemsize + FLOAT32.size(1)))

    def _count(self, values: int) -> int:
        return min(values, math.ceil(self._ratio * values))

    def encode(self, vector: Vector, seed: int) -> memoryview:  # noqa: ARG002  nothing here is random
        """The bytes of ``vector``. What is not finite is larger than anything else."""
        count = self._count(len(vector))
        if not count:
            return memoryview(b"")
        magnitudes = np.nan_to_num(np.abs(vector), copy=False, nan=np.inf, posinf=np.inf)
        least = np.partition(magnitudes, len(vector) - count)[len(vector) - count]
        larger = np.flatnonzero(magnitudes > least)
        equal = np.flatnonzero(magnitudes == least)[: count - len(larger)]
        places = np.sort(np.concatenate([larger, equal]))
        encoded = np.empty((_PLACE.itemsize + FLOAT32.size(1)) * count, np.uint8)
        encoded[: _PLACE.itemsize * count].view(_PLACE)[:] = places
        encoded[_PLACE.itemsize * count :].view("<f4")[:] = vector[places]
        return encoded.data

    def decode_block(self, data: Buffer, values: int, start: int, out: Vector) -> None:
        """See `Encoding.decode_block`."""
        places, sent = self._parts(data, values)
        bounds = np.array([start, start + len(out)], np.int64).clip(max=2**32 - 1).astype(_PLACE)
        first, last = places.searchsorted(bounds)
        out[:] = 0
        out[places[first:last] - np.uint32(start)] = sent[first:last]

    def check(self, data: Buffer, values: int, most: float) -> float:
        """The largest magnitude that was sent. The places must be ascending, and in range."""
        places, sent = self._parts(data, values)
        if not len(places):
            return 0.0
        if int(places[-1]) >= values:
            raise MalformedError(f"place {int(places[-1])}, expected less than {values}")
        if not (places[1:] > places[:-1]).all():
            index = int(np.argmin(places[1:] > places[:-1]))
            raise MalformedError(
                f"place {int(places[index + 1])} after {int(places[index])}, expected ascending places"
            )
        try:
            return FLOAT32.check(sent.view(np.uint8).data, len(sent), most)
        except NotFiniteError as error:
            raise NotFiniteError(int(places[error.index]), error.value) from None

    def _parts(self, data: Buffer, values: int) -> tuple[NDArray[np.uint32], Vector]:
        count = self._count(values)
        return np.frombuffer(data, _PLACE, count), np.frombuffer(data, "<f4", count, _PLACE.itemsize * count)


class TopKFamily(Family):
    """``topk`` with any ratio."""

    name = "topk"
    example = "0.01"
    expected = f"the ratio of the values to send, from {MIN_RATIO:f} to {MAX_RATIO:g}"

    def of(self, parameter: str) -> Encoding:
        """See `Family.of`."""
        ratio = float(parameter)
        if not MIN_RATIO <= ratio <= MAX_RATIO:
            raise ValueError("out of range")
        return TopK(ratio)


TOPK: Final = TopKFamily()
