"""How an encoding is applied to a section: the values of its manifest's arrays.

An encoding without loss is applied to all values, in their order. One that loses something is applied to the parameters
alone, as one vector; the buffers, such as running means and variances, come before them as float32.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol, Self

import numpy as np

from fl_shared.tensors.encodings import registry
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.interface import (
    BLOCK,
    Buffer,
    Encoding,
    NotFiniteError,
    TooLargeError,
    sizes_text,
)
from fl_shared.tensors.manifest import Manifest, Vector
from fl_shared.tensors.spans import Span, spans


class Values(Protocol):
    """The values of a section, perhaps decoded block by block: a `Vector`, or an `EncodedVector`."""

    def __len__(self) -> int:
        """The number of values."""

    def __getitem__(self, where: slice, /) -> Vector:
        """These consecutive values; perhaps a view. Take a few at a time: they may be decoded for it."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The parameters of a section, or its buffers, as one vector: where they are, and how they are encoded."""

    encoding: Encoding
    where: list[Span]
    starts: list[int]
    """The place in the vector of the first value of each span."""
    values: int
    bytes: slice
    """Where its bytes are in those of the section."""

    @classmethod
    def of(cls, encoding: Encoding, where: list[Span], start: int = 0, stop: int | None = None) -> Self:
        ends = list(accumulate(stop - start for start, stop in where))
        return cls(encoding, where, [0, *ends[:-1]], ends[-1] if ends else 0, slice(start, stop))

    @property
    def sizes(self) -> range:
        return self.encoding.sizes(self.values)

    def gathered(self, vector: Vector) -> Vector:
        """The values as one vector; a view if they are consecutive."""
        if len(self.where) == 1:
            return vector[slice(*self.where[0])]
        return np.concatenate([vector[:0], *(vector[start:stop] for start, stop in self.where)])

    def bytes_in(self, data: Buffer) -> memoryview:
        return memoryview(data)[self.bytes]

    def place(self, index: int) -> int:
        """The place in the section of the value at ``index`` of the vector."""
        span = bisect_right(self.starts, index) - 1
        return self.where[span][0] + index - self.starts[span]

    def overlaps(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The spans between two places of the section: first place, place after the last, index of the first."""
        first = max(0, bisect_right(self.where, (start, 2**63)) - 1)
        for span, begin in zip(self.where[first:], self.starts[first:], strict=True):
            if span[0] >= stop:
                return
            low, high = max(span[0], start), min(span[1], stop)
            if low < high:
                yield low, high, begin + low - span[0]


@dataclass(frozen=True, slots=True)
class SectionFormat:
    """An encoding, applied to the arrays of a manifest."""

    encoding: Encoding
    values: int
    _parts: tuple[_Part, ...] = field(repr=False)

    @classmethod
    def of(cls, encoding: str, manifest: Manifest) -> Self:
        """Returns how sections in the encoding of this name are. Raises ``ValueError`` for an unknown name."""
        found, values = registry.get(encoding), manifest.values
        if not found.lossy:
            return cls(found, values, (_Part.of(found, [(0, values)]),))
        where = spans(manifest, buffers=True)
        end = FLOAT32.size(sum(stop - start for start, stop in where))
        buffers = _Part.of(FLOAT32, where, 0, end)
        parameters = _Part.of(found, spans(manifest, buffers=False), end)
        return cls(found, values, tuple(part for part in (buffers, parameters) if part.values))

    @property
    def sizes(self) -> range:
        """The numbers of bytes that a section may have."""
        sizes = [part.sizes for part in self._parts]
        return range(sum(one[0] for one in sizes), sum(one[-1] for one in sizes) + 1)

    def size_problem(self, size: int) -> str | None:
        """Says what is wrong with a section of ``size`` bytes; null if nothing is."""
        return None if size in self.sizes else f"{size} bytes, expected {sizes_text(self.sizes)}"

    def encode(self, vector: Vector, seed: int) -> memoryview:
        """The bytes of ``vector``, shape (values,), perhaps as a view."""
        encoded = [part.encoding.encode(part.gathered(vector), seed) for part in self._parts]
        return encoded[0] if len(encoded) == 1 else memoryview(b"".join(encoded))

    def check(self, data: Buffer, most: float) -> float:
        """An upper bound of the magnitudes in ``data``, whose length is one of `sizes` (see `Encoding.check`).

        Raises the same errors; the index of `NotFiniteError` is that of a value of the section.
        """
        largest = 0.0
        for part in self._parts:
            try:
                largest = max(largest, part.encoding.check(part.bytes_in(data), part.values, np.inf))
            except NotFiniteError as error:
                raise NotFiniteError(part.place(error.index), error.value) from None
        if largest > most:
            raise TooLargeError(largest)
        return largest

    def values_in(self, data: Buffer) -> Values:
        """The values in ``data``, which has been checked: a view of it, or decoded where they are needed."""
        if self.encoding is FLOAT32:
            return FLOAT32.decode(data)
        return EncodedVector(self, data)

    def read(self, data: Buffer, start: int, out: Vector) -> None:
        """Decodes the values from ``start`` on to ``out``."""
        for part in self._parts:
            own = part.bytes_in(data)
            for low, high, index in part.overlaps(start, start + len(out)):
                part.encoding.decode_block(own, part.values, index, out[low - start : high - start])


@dataclass(frozen=True, slots=True)
class EncodedVector:
    """The values of a section, of which only those are decoded that are asked for."""

    format: SectionFormat
    data: Buffer = field(repr=False)

    def __len__(self) -> int:
        return self.format.values

    def __getitem__(self, where: slice) -> Vector:
        start, stop, _ = where.indices(self.format.values)
        out = np.empty(max(0, stop - start), np.float32)
        self.format.read(self.data, start, out)
        return out


def decoded(values: Values) -> Vector:
    """All values as a vector of their own, writable."""
    vector = np.empty(len(values), np.float32)
    for start in range(0, len(vector), BLOCK):
        vector[start : start + BLOCK] = values[start : start + BLOCK]
    return vector
