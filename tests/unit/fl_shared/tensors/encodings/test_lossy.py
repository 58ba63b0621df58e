"""What the encodings that lose something promise, their bytes, and content that is refused (protocol, 3.8 to 3.10)."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.tensors.encodings import registry
from fl_shared.tensors.encodings.interface import MalformedError, NotFiniteError
from fl_shared.tensors.encodings.section import SectionFormat, decoded
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector

VALUES = st.lists(
    st.floats(min_value=-(2.0**100), max_value=2.0**100, width=32, allow_subnormal=False),
    min_size=1,
    max_size=600,
)


def vector(values: list[float]) -> Vector:
    return np.array(values, np.float32)


def manifest(values: int) -> Manifest:
    return Manifest(arrays=(ArraySpec(name="w", shape=(values,)),))


def through(name: str, values: Vector, seed: int = 0) -> Vector:
    """What arrives of ``values``."""
    form = SectionFormat.of(name, manifest(len(values)))
    data = form.encode(values, seed)
    form.check(data, math.inf)
    return decoded(form.values_in(data))


# --- what is promised -------------------------------------------------------------------------------------


@given(VALUES)
def test_3_8_bf16_is_within_a_256th(values: list[float]) -> None:
    given_values = vector(values)
    assert (np.abs(through("bf16", given_values) - given_values) <= np.abs(given_values) * 2.0**-8).all()


def test_3_8_bf16_rounds_to_the_nearest_and_halves_to_even() -> None:
    bits = np.array([0x3F80_7FFF, 0x3F80_8000, 0x3F80_8001, 0x3F81_8000], np.uint32)
    arrived = through("bf16", bits.view(np.float32)).view(np.uint32)
    assert arrived.tolist() == [0x3F80_0000, 0x3F80_0000, 0x3F81_0000, 0x3F82_0000]


@given(VALUES, st.integers(0, 2**64 - 1))
def test_3_9_q8_is_within_one_step_of_its_block(values: list[float], seed: int) -> None:
    given_values = vector(values)
    arrived = through("q8", given_values, seed)
    for start in range(0, len(values), 256):
        block = slice(start, start + 256)
        step = np.abs(given_values[block]).max() / 127
        assert (np.abs(arrived[block] - given_values[block]) <= step * 1.0001).all()


def test_3_9_q8_is_unbiased() -> None:
    """Over N seeds the mean is off by at most 5 deviations of a step's rounding, 0.5 / √N."""
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    seeds = 2000
    mean = sum(through("q8", values, seed).astype(np.float64) for seed in range(seeds)) / seeds
    steps = np.array([np.abs(values[start : start + 256]).max() / 127 for start in range(0, 1000, 256)])
    errors = (mean - values) / np.repeat(steps, 256)[:1000]
    assert np.abs(errors).max() <= 5 * 0.5 / math.sqrt(seeds)
    assert abs(errors.mean()) <= 5 * 0.5 / math.sqrt(seeds * 1000)


@given(VALUES, st.sampled_from([0.01, 0.1, 0.5]))
def test_3_10_topk_sends_the_largest_as_they_are(values: list[float], ratio: float) -> None:
    given_values = vector(values)
    arrived = through(f"topk:{ratio}", given_values)
    sent = arrived != 0
    assert (arrived[sent] == given_values[sent]).all()
    assert sent.sum() <= math.ceil(ratio * len(values))
    if sent.any() and not sent.all():
        assert np.abs(given_values[sent]).min() >= np.abs(given_values[~sent]).max()


def test_3_10_of_equal_magnitudes_topk_sends_the_first() -> None:
    assert through("topk:0.5", vector([1, -1, 1, -1, 1, 1])).tolist() == [1, -1, 1, 0, 0, 0]


# --- bytes ------------------------------------------------------------------------------------------------


def test_3_8_the_bytes_of_bf16() -> None:
    data = SectionFormat.of("bf16", manifest(3)).encode(vector([1.0, -2.5, 0.1]), 0)
    assert data.hex() == "803f20c0cd3d"


def test_3_9_the_bytes_of_q8() -> None:
    """With PCG64 of seed 7; the second block has a scale of its own."""
    values = np.zeros(258, np.float32)
    values[:3], values[256:] = (127.0, -63.5, 0.25), (-1.27, 0.005)
    data = bytes(SectionFormat.of("q8", manifest(258)).encode(values, 7))
    assert data[:8] == struct.pack("<2f", 1.0, np.float32(1.27) / np.float32(127))
    assert len(data) == 8 + 258
    assert np.frombuffer(data[8:11], np.int8).tolist() == GOLDEN_Q8[0]
    assert np.frombuffer(data[-2:], np.int8).tolist() == GOLDEN_Q8[1]
    assert not any(data[11:-2])


GOLDEN_Q8 = ([127, -63, 0], [-127, 1])


def test_3_10_the_bytes_of_topk() -> None:
    data = SectionFormat.of("topk:0.5", manifest(4)).encode(vector([0.5, -3.0, 0.0, 2.0]), 0)
    assert bytes(data) == struct.pack("<2I2f", 1, 3, -3.0, 2.0)


@pytest.mark.parametrize(("name", "size"), [("bf16", 2), ("q8", 5), ("topk:0.01", 8)])
def test_3_1_buffers_come_first_as_float32(name: str, size: int) -> None:
    arrays = (
        ArraySpec(name="a", shape=(1,)),
        ArraySpec(name="b", shape=(2,), role="buffer"),
        ArraySpec(name="c", shape=(0,)),
        ArraySpec(name="d", shape=(1,), role="buffer"),
    )
    form = SectionFormat.of(name, Manifest(arrays=arrays))
    values = vector([1.0, 0.1, 0.2, 0.3])
    data = bytes(form.encode(values, 0))
    assert data[:12] == values[1:].tobytes()
    assert (len(data),) == tuple(form.sizes) == (12 + size,)
    arrived = form.values_in(data)
    assert arrived[1:4].tolist() == values[1:].tolist()
    assert arrived[0:1].tolist() == [1.0]


# --- what is refused --------------------------------------------------------------------------------------


def refuse(name: str, values: int, data: bytes) -> str:
    encoding = registry.get(name)
    assert len(data) in encoding.sizes(values)
    with pytest.raises((MalformedError, NotFiniteError)) as caught:
        encoding.check(data, values, math.inf)
    return str(caught.value)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ((3, 1), "place 1 after 3, expected ascending places"),
        ((1, 1), "place 1 after 1, expected ascending places"),
        ((1, 4), "place 4, expected less than 4"),
        ((2**32 - 1, 1), "place 1 after 4294967295, expected ascending places"),
    ],
)
def test_3_10_places_are_ascending_and_in_range(places: tuple[int, int], said: str) -> None:
    assert refuse("topk:0.5", 4, struct.pack("<2I2f", *places, 1.0, 1.0)) == said


def test_what_is_not_finite_is_named() -> None:
    assert refuse("topk:0.5", 4, struct.pack("<2I2f", 0, 3, 1.0, math.nan)).startswith("value 3 is nan")
    assert refuse("bf16", 2, struct.pack("<2H", 0x3F80, 0xFF80)).startswith("value 1 is -inf")
    for scale in (math.nan, math.inf, 1e37):
        assert refuse("q8", 257, struct.pack("<2f", 1.0, scale) + bytes(257)).startswith("value 256 is")


def test_3_9_a_scale_is_not_negative_and_an_integer_not_below_minus_127() -> None:
    assert refuse("q8", 1, struct.pack("<fb", -1.0, 1)) == "the scale of block 0 is -1, expected at least 0"
    assert (
        refuse("q8", 1, struct.pack("<fb", 1.0, -128))
        == "value 0 is the integer -128, expected at least -127"
    )
