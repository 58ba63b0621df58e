"""The encodings of masked updates: ``masked32`` to ``masked64``, integers modulo 2^bits, and ``raw``, bytes."""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.interface import BLOCK, Buffer, TooLargeError, exactly
from fl_shared.tensors.manifest import Vector

Words = NDArray[np.unsignedinteger[Any]]
"""Integers modulo 2^bits, shape (values,), little-endian: uint32 for 32 bits, else uint64 with unused upper bits."""
Bits = Literal[32, 40, 48, 64]
"""The bits of a masked integer, from which a run chooses."""
WIDTHS: Final[tuple[Bits, ...]] = get_args(Bits)


class MaskedIntegers:
    """The encoding ``masked<bits>``: the low bits of each word, little-endian. A mask makes them look random.

    No edge offers it, and no run asks for it by name: a run asks for masks.
    """

    lossy = False
    """Of its integers: so buffers are among them."""
    feedback = False

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.name = f"masked{bits}"
        self.dtype = np.dtype("<u4" if bits == 32 else "<u8")
        self._bytes = bits // 8

    def sizes(self, values: int) -> range:
        """``bits`` / 8 bytes for each value."""
        return exactly(values * self._bytes)

    def pack(self, words: Words) -> memoryview:
        """The bytes of ``words``, shape (values,); a view of them if whole words are sent."""
        data = np.ascontiguousarray(words, self.dtype).view(np.uint8)
        if self._bytes == self.dtype.itemsize:
            return data.data
        return np.ascontiguousarray(data.reshape(-1, 8)[:, : self._bytes]).reshape(-1).data

    def unpack(self, data: Buffer) -> Words:
        """The words in ``data``, a view of it where possible. Raises ``ValueError`` for a wrong length."""
        if len(data) % self._bytes:
            raise ValueError(f"{len(data)} bytes, expected a multiple of {self._bytes}")
        if self._bytes == self.dtype.itemsize:
            return np.frombuffer(data, self.dtype)
        words = np.zeros((len(data) // self._bytes, 8), np.uint8)
        words[:, : self._bytes] = np.frombuffer(data, np.uint8).reshape(-1, self._bytes)
        return words.reshape(-1).view(self.dtype)

    def signed(self, words: Words) -> Int64s:
        """The integers from −2^(bits − 1) to 2^(bits − 1) − 1 that ``words`` are modulo 2^bits; perhaps a view."""
        if self.bits == 32:
            return words.view(np.int32).astype(np.int64)
        if self.bits == 64:
            return words.view(np.int64)
        shift = 64 - self.bits
        integers = (words << np.uint64(shift)).view(np.int64)
        integers >>= np.int64(shift)
        return integers

    def sign(self, memory: Int64s) -> None:
        """Makes the integers of `signed` in the memory of their words, which are at its beginning."""
        words = memory.view(self.dtype)[: len(memory)]
        if self.bits < 64:
            for stop in range(
                len(memory), 0, -BLOCK
            ):  # from the end: integers may be longer than their words
                start = max(0, stop - BLOCK)
                memory[start:stop] = self.signed(words[start:stop])

    def encode(self, vector: Vector, seed: int) -> memoryview:  # noqa: ARG002  nothing here is random
        """The bytes of the nearest integers."""
        return self.pack(np.rint(vector).astype(np.int64).astype(self.dtype))

    def decode_block(self, data: Buffer, values: int, start: int, out: Vector) -> None:  # noqa: ARG002
        """Writes the integers from ``start`` on to ``out``, rounded to float32."""
        part = memoryview(data)[start * self._bytes : (start + len(out)) * self._bytes]
        out[:] = self.signed(self.unpack(part))

    def check(self, data: Buffer, values: int, most: float) -> float:  # noqa: ARG002  masked words may be any
        """The largest magnitude of any word. Raises `TooLargeError`."""
        return _bounded(2.0 ** (self.bits - 1), most)


class RawBytes:
    """The encoding ``raw``: a byte for each value. It carries what is no vector: the shares of a masked update."""

    name = "raw"
    lossy = False
    feedback = False

    def sizes(self, values: int) -> range:
        """One byte for each value."""
        return exactly(values)

    def encode(self, vector: Vector, seed: int) -> memoryview:  # noqa: ARG002
        """The nearest integers modulo 256."""
        return np.rint(vector).astype(np.int64).astype(np.uint8).data

    def decode_block(self, data: Buffer, values: int, start: int, out: Vector) -> None:
        """Writes the bytes from ``start`` on to ``out``."""
        out[:] = np.frombuffer(data, np.uint8, values)[start : start + len(out)]

    def check(self, data: Buffer, values: int, most: float) -> float:  # noqa: ARG002
        """The largest value of any byte. Raises `TooLargeError`."""
        return _bounded(255.0, most)


def _bounded(largest: float, most: float) -> float:
    if largest > most:
        raise TooLargeError(largest)
    return largest


MASKED: Final[dict[int, MaskedIntegers]] = {bits: MaskedIntegers(bits) for bits in WIDTHS}
"""The encodings by their bits."""
RAW: Final = RawBytes()
