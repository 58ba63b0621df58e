"""The encoding ``shuffle-deflate``: float32 without loss, in fewer bytes.

Byte shuffle, as in HDF5 and Blosc: of each block of values, the first bytes come together, then the second ones, and so
on. These four planes are packed with DEFLATE (RFC 1951), each alone. Signs and exponents of an update are much alike,
and its last bits are often 0, since it is a difference of two larger float32 numbers. Bytes in the middle are random; a
plane that does not become shorter stays as it is. Runs of one byte and Huffman codes (zlib's ``Z_RLE``) save as much
as a search for longer repetitions, and take a third of the time.

The data are the lengths of the planes (little-endian uint16, four for each block), and then the planes. A plane that is
as long as its block has values is not packed.
"""

from __future__ import annotations

import zlib
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors.encodings.interface import Buffer, MalformedError, NotFiniteError, TooLargeError
from fl_shared.tensors.manifest import Vector, magnitude

VALUES: Final = 2**14
"""Values of a block: as many as are read at a time, so that none is unpacked for nothing."""
_LENGTH: Final = np.dtype("<u2")
_FLOAT: Final = np.dtype("<f4")
_PLANES: Final = _FLOAT.itemsize
_RAW: Final = -15
"""The window of DEFLATE without a header or a checksum: the digest of the update covers the bytes."""
Lengths = NDArray[np.uint16]


class ShuffleDeflate:
    """The encoding ``shuffle-deflate``."""

    name: Literal["shuffle-deflate"] = "shuffle-deflate"
    lossy = False
    feedback = False

    def sizes(self, values: int) -> range:
        """At most four bytes for each value, and eight for each block; at least twelve for each block."""
        table = _table_size(values)
        return range(table + _PLANES * _blocks(values), table + _PLANES * values + 1)

    def encode(self, vector: Vector, seed: int) -> memoryview:  # noqa: ARG002  nothing here is random
        """The bytes of ``vector``."""
        encoded = np.empty(self.sizes(len(vector))[-1], np.uint8)
        lengths, end = _lengths(encoded.data, len(vector)), _table_size(len(vector))
        for block, start in enumerate(range(0, len(vector), VALUES)):
            floats = np.ascontiguousarray(vector[start : start + VALUES], _FLOAT)
            for plane, content in enumerate(
                np.ascontiguousarray(floats.view(np.uint8).reshape(-1, _PLANES).T)
            ):
                packed = _packed(content.data)
                lengths[block, plane] = len(packed)
                encoded[end : end + len(packed)] = np.frombuffer(packed, np.uint8)
                end += len(packed)
        return encoded[:end].data

    def decode_block(self, data: Buffer, values: int, start: int, out: Vector) -> None:
        """See `Encoding.decode_block`. Unpacks the blocks that the values are in, one at a time."""
        lengths, view, stop = _lengths(data, values), memoryview(data), start + len(out)
        block = start // VALUES
        offset = _table_size(values) + int(lengths[:block].sum())
        for first in range(block * VALUES, stop, VALUES):
            count = min(VALUES, values - first)
            floats, offset = _block(view, lengths[first // VALUES], offset, count)
            low, high = max(first, start), min(first + count, stop)
            out[low - start : high - start] = floats[low - first : high - first]

    def check(self, data: Buffer, values: int, most: float) -> float:
        """The largest magnitude. Every block is unpacked for it, one at a time."""
        lengths, view, offset, largest = _lengths(data, values), memoryview(data), _table_size(values), 0.0
        if offset + int(lengths.sum()) != len(view):
            raise MalformedError(
                f"planes of {int(lengths.sum())} bytes, but there are {len(view) - offset} after their lengths"
            )
        for block, first in enumerate(range(0, values, VALUES)):
            floats, offset = _block(view, lengths[block], offset, min(VALUES, values - first))
            largest = max(largest, found := magnitude(floats))
            if not np.isfinite(found):
                index = int(np.argmin(np.isfinite(floats)))
                raise NotFiniteError(first + index, float(floats[index]))
        if largest > most:
            raise TooLargeError(largest)
        return largest


def _blocks(values: int) -> int:
    return -(-values // VALUES)


def _table_size(values: int) -> int:
    return _blocks(values) * _PLANES * _LENGTH.itemsize


def _lengths(data: Buffer, values: int) -> Lengths:
    """The lengths of the planes, shape (blocks, planes), as a view of ``data``."""
    return np.frombuffer(data, _LENGTH, _blocks(values) * _PLANES).reshape(-1, _PLANES)


def _packed(plane: Buffer) -> Buffer:
    """The plane in DEFLATE, or as it is if that is not shorter."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _RAW, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    packed = packer.compress(plane) + packer.flush()
    return packed if len(packed) < len(plane) else plane


def _block(data: memoryview, lengths: Lengths, offset: int, values: int) -> tuple[Vector, int]:
    """The values of the block whose planes begin at ``offset``, and where they end. Raises `MalformedError`."""
    shuffled = np.empty((values, _PLANES), np.uint8)
    for plane, length in enumerate(lengths.tolist()):
        content = _unpacked(data[offset : offset + length], values)
        shuffled[:, plane] = np.frombuffer(content, np.uint8)
        offset += length
    return shuffled.view(_FLOAT).reshape(-1), offset


def _unpacked(plane: memoryview, values: int) -> Buffer:
    """The bytes of a plane, of which there are ``values``; no more are made of it. Raises `MalformedError`."""
    if len(plane) == values:
        return plane
    unpacker = zlib.decompressobj(_RAW)
    try:
        content = unpacker.decompress(plane, values + 1)
    except zlib.error as error:
        raise MalformedError(f"a plane of {len(plane)} bytes is not in DEFLATE: {error}") from None
    if len(content) != values or not unpacker.eof or unpacker.unused_data or len(plane) > values:
        raise MalformedError(f"a plane of {len(plane)} bytes, expected DEFLATE of {values} bytes in fewer")
    return content


SHUFFLE_DEFLATE: Final = ShuffleDeflate()
