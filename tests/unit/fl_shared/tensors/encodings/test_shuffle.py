"""``shuffle-deflate``: no bit changes, few bytes stay few, and hostile ones are refused (protocol, 3.11)."""

from __future__ import annotations

import math
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.tensors.encodings.interface import MalformedError
from fl_shared.tensors.encodings.shuffle import SHUFFLE_DEFLATE, VALUES
from fl_shared.tensors.manifest import Vector


def through(vector: Vector) -> Vector:
    """What arrives of ``vector``."""
    data = SHUFFLE_DEFLATE.encode(vector, 0)
    assert len(data) in SHUFFLE_DEFLATE.sizes(len(vector))
    out = np.empty_like(vector)
    SHUFFLE_DEFLATE.decode_block(data, len(vector), 0, out)
    return out


def difference(values: int) -> Vector:
    """The difference of two vectors of weights that are not far from each other, as an update is."""
    rng = np.random.default_rng(0)
    before = rng.normal(scale=0.05, size=values).astype(np.float32)
    change: Vector = before + rng.normal(scale=0.001, size=values).astype(np.float32) - before
    return change


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=40))
def test_3_11_every_bit_arrives(values: list[float]) -> None:
    vector = np.array(values, np.float32)
    assert through(vector).tobytes() == vector.tobytes()


def test_3_11_random_bits_take_eight_bytes_more_for_each_block() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, VALUES + 1, np.uint32).view(np.float32)
    data = SHUFFLE_DEFLATE.encode(bits, 0)
    assert len(data) == SHUFFLE_DEFLATE.sizes(VALUES + 1)[-1] == 4 * (VALUES + 1) + 16


def test_an_update_takes_less_than_three_quarters() -> None:
    vector = difference(100_000)
    assert through(vector).tobytes() == vector.tobytes()
    assert len(SHUFFLE_DEFLATE.encode(vector, 0)) < 0.75 * vector.nbytes
    assert len(SHUFFLE_DEFLATE.encode(np.zeros_like(vector), 0)) < 0.01 * vector.nbytes


def test_3_11_the_bytes() -> None:
    """Planes of three different bytes stay as they are; one of 300 zeros is packed."""
    vector = np.array([1.0, -2.0, 3.0], np.float32)
    assert (
        bytes(SHUFFLE_DEFLATE.encode(vector, 0)).hex()
        == "0300" * 4 + "000000" + "000000" + "800040" + "3fc040"
    )
    data = bytes(SHUFFLE_DEFLATE.encode(np.zeros(300, np.float32), 0))
    lengths = struct.unpack("<4H", data[:8])
    assert sum(lengths) == len(data) - 8
    assert zlib.decompress(data[8 : 8 + lengths[0]], -15) == bytes(300)


def test_nothing_of_the_whole_vector_is_allocated() -> None:
    values = 2**20
    data = SHUFFLE_DEFLATE.encode(difference(values), 0)
    out = np.empty(2**15, np.float32)
    tracemalloc.start()
    try:
        SHUFFLE_DEFLATE.check(data, values, math.inf)
        SHUFFLE_DEFLATE.decode_block(data, values, values - 2**15 - 7, out)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


# --- what is refused --------------------------------------------------------------------------------------


def packed(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def section(plane: bytes, values: int = 100) -> bytes:
    """A block whose first plane is ``plane``, and the others zeros that are not packed."""
    return struct.pack("<4H", len(plane), *[values] * 3) + plane + bytes(3 * values)


def refuse(data: bytes, values: int = 100) -> str:
    with pytest.raises(MalformedError) as caught:
        SHUFFLE_DEFLATE.check(data, values, math.inf)
    return str(caught.value)


def test_a_good_section_passes() -> None:
    assert SHUFFLE_DEFLATE.check(section(packed(bytes(100))), 100, math.inf) == 0.0
    assert SHUFFLE_DEFLATE.check(section(bytes(100)), 100, math.inf) == 0.0


@pytest.mark.parametrize(
    ("plane", "said"),
    [
        (b"\xff", "a plane of 1 bytes is not in DEFLATE: "),
        (b"", "a plane of 0 bytes, expected DEFLATE of 100 bytes in fewer"),
        (packed(bytes(99)), "expected DEFLATE of 100 bytes in fewer"),
        (packed(bytes(101)), "expected DEFLATE of 100 bytes in fewer"),
        (packed(bytes(100))[:-1], "expected DEFLATE of 100 bytes in fewer"),
        (packed(bytes(100)) + b"\0", "expected DEFLATE of 100 bytes in fewer"),
        (bytes(101), "a plane of 101 bytes"),
        (packed(np.random.default_rng(0).bytes(100)), "a plane of 105 bytes, expected DEFLATE of 100 bytes in fewer"),
    ],
)  # fmt: skip
def test_3_11_a_plane_that_is_not_as_it_should_be(plane: bytes, said: str) -> None:
    assert said in refuse(section(plane))


def test_3_11_the_lengths_add_up_to_the_data() -> None:
    data = section(bytes(100))
    assert refuse(data[:-1]) == "planes of 400 bytes, but there are 399 after their lengths"
    assert refuse(data + b"\0") == "planes of 400 bytes, but there are 401 after their lengths"


def test_a_few_bytes_cannot_become_many() -> None:
    """What a plane is unpacked to ends one byte after its values, however much is packed."""
    bomb = packed(bytes(10_000_000))
    assert len(bomb) < VALUES
    data = section(bomb, VALUES)
    tracemalloc.start()
    try:
        assert "expected DEFLATE" in refuse(data, VALUES)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
