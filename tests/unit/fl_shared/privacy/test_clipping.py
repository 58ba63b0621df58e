"""The integers of a clipped update are never longer than the clip, whatever the update is."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fl_aggregator.aggregation.exact_sum import ExactSum
from fl_shared.privacy.clipping import clip_factor, private_scale_bits
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.masked import WIDTHS
from fl_shared.tensors.manifest import Vector
from fl_shared.tensors.norms import norm
from tests.support.clipped_updates import clip_to_grid

clips = st.floats(-20, 20).map(lambda power: 2.0**power)
places = st.integers(12, 36)
"""Relative to the clip: so many bits has the longest update on the grid."""
vectors = arrays(
    np.float32,
    st.integers(0, 40),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True),
)


def scale_of(clip: float, bits: int) -> int:
    return bits - math.floor(math.log2(clip))


def is_within(integers: Int64s, clip: float, scale_bits: int) -> bool:
    """Whether ‖q‖² ≤ (S × 2^scale_bits)², exactly."""
    return square(integers) <= (Fraction(clip) * Fraction(2) ** scale_bits) ** 2


def square(integers: Int64s) -> int:
    """‖q‖², exactly."""
    values, counts = np.unique(integers, return_counts=True)
    return sum(value**2 * count for value, count in zip(values.tolist(), counts.tolist(), strict=True))


@given(delta=vectors, clip=clips, bits=places, power=st.integers(-149, 0))
def test_no_update_is_longer_than_the_clip(delta: Vector, clip: float, bits: int, power: int) -> None:
    scale_bits = scale_of(clip, bits)
    with np.errstate(under="ignore"):
        delta = (delta * 2.0**power).astype(np.float32)
    assert is_within(clip_to_grid(delta, clip, scale_bits), clip, scale_bits)


@given(
    seed=st.integers(0, 2**32 - 1),
    values=st.integers(1, 3000),
    length=st.floats(0.9, 1.1),
    clip=clips,
    bits=places,
)
def test_no_update_near_the_clip_is_longer_than_it(
    seed: int, values: int, length: float, clip: float, bits: int
) -> None:
    scale_bits = scale_of(clip, bits)
    direction = np.random.default_rng(seed).normal(size=values)
    delta = (direction * (length * clip / np.linalg.norm(direction))).astype(np.float32)
    assert is_within(clip_to_grid(delta, clip, scale_bits), clip, scale_bits)


@pytest.mark.parametrize("value", [1e-45, 1e-30, 1.0, 1e38, np.finfo(np.float32).max])
@pytest.mark.parametrize("spike", [False, True])
def test_a_million_values(value: float, spike: bool) -> None:
    delta = np.full(10**6, 0.0 if spike else value, np.float32)
    delta[4711] = -value
    for scale_bits in (16, 30, 61):
        integers = clip_to_grid(delta, 1.0, scale_bits)
        assert is_within(integers, 1.0, scale_bits)
        if value >= 1:  # and no shorter than it must be
            assert math.sqrt(square(integers)) / 2**scale_bits == pytest.approx(
                1, abs=1000 * 2.0**-scale_bits + 1e-8
            )


@pytest.mark.parametrize("values", [1, 3, 1000, 10**6])
def test_halves_that_are_all_rounded_up_do_not_exceed_the_clip(values: int) -> None:
    """The worst case of rounding: each value is just above a half before, and a whole after it."""
    scale_bits = 14
    each = (1000.5 + 1e-4) * 2.0**-scale_bits
    clip = float(math.sqrt(values) * each)
    delta = np.full(values, each, np.float32)
    assert not is_within(np.rint(delta * 2.0**scale_bits).astype(np.int64), clip, scale_bits)
    assert is_within(clip_to_grid(delta, clip, scale_bits), clip, scale_bits)


@given(delta=vectors, clip=clips)
def test_the_direction_is_kept(delta: Vector, clip: float) -> None:
    scale_bits = scale_of(clip, 36)
    integers = clip_to_grid(delta, clip, scale_bits)
    length = norm(delta, [(0, len(delta))])
    if length:
        shrunk = delta.astype(np.float64) * (min(1.0, clip / length) * 2.0**scale_bits)
        assert np.abs(integers - shrunk).max() <= 0.5 + 1e-8 * 2.0**37


@given(delta=vectors, clip=clips, bits=places)
def test_an_update_within_the_clip_changes_by_rounding_only(delta: Vector, clip: float, bits: int) -> None:
    scale_bits = scale_of(clip, bits)
    length = norm(delta, [(0, len(delta))])
    if length:
        delta = (delta.astype(np.float64) * min(1.0, 0.99 * clip / length)).astype(np.float32)
    expected = [round(Fraction(float(one)) * Fraction(2) ** scale_bits) for one in delta]
    assert clip_to_grid(delta, clip, scale_bits).tolist() == expected


@given(
    updates=st.lists(arrays(np.float32, 9, elements=st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=5)
)
def test_the_exact_sum_with_factors_as_weights_adds_the_same_integers(updates: list[Vector]) -> None:
    scale_bits = private_scale_bits(0.3, 1.5, len(updates))
    total = ExactSum(9, scale_bits, len(updates))
    for delta in updates:
        length = norm(delta, [(0, 9)])
        total.add(delta, weight=clip_factor(length, 9, 0.3, scale_bits))
    clipped = [clip_to_grid(delta, 0.3, scale_bits) for delta in updates]
    assert all(is_within(integers, 0.3, scale_bits) for integers in clipped)
    assert total.integers().tolist() == np.sum(clipped, axis=0).tolist()


@pytest.mark.parametrize("bits", [10, 40, 61])
def test_it_rounds_as_the_exact_sum_does_in_all_blocks(bits: int) -> None:
    """Also with products beyond 2^51, where the two ways of rounding part."""
    delta = np.random.default_rng(1).normal(size=100_000).astype(np.float32)
    delta[77] = 1e9
    total = ExactSum(len(delta), bits, 1)
    total.add(delta, clip_factor(norm(delta, [(0, len(delta))]), len(delta), 1.0, bits))
    assert np.array_equal(total.integers(), clip_to_grid(delta, 1.0, bits))


@pytest.mark.parametrize("bits", WIDTHS)
@given(
    clip=clips,
    noise=st.floats(-6, 8).map(lambda power: 2.0**power),
    slots=st.integers(1, 10_000),
)
def test_a_private_sum_fits_with_its_noise(bits: int, clip: float, noise: float, slots: int) -> None:
    try:
        scale_bits = private_scale_bits(clip, noise, slots, bits)
    except ValueError:
        assert noise * 2.0 ** (bits - 2) / (slots + 12 * noise) < 2**10
        return
    grid = Fraction(clip) * Fraction(2) ** scale_bits
    assert grid * (slots + 12 * Fraction(noise)) <= 2 ** (bits - 2)
    assert (
        2**8 <= grid * Fraction(noise) <= 2**28 * (1 + Fraction(1, 2**50))
    )  # the product of two floats is rounded


def test_places_of_a_private_sum() -> None:
    assert private_scale_bits(1.0, 1.0, 20) == 28
    assert private_scale_bits(1.0, 1.0, 20, room=256.0) == 24
    assert private_scale_bits(1.0, 1.0, 20, 32) == 25
    assert private_scale_bits(0.5, 6.0, 100, 40) == 26


def test_bits_that_leave_too_little_noise_are_named() -> None:
    with pytest.raises(ValueError, match=r"bits: 32 leave the noise a standard deviation of 5\.1 units"):
        private_scale_bits(1.0, 0.01, 2**20, 32)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((math.inf, 3, 1.0, 20), "length: inf, expected"),
        ((math.nan, 3, 1.0, 20), "length: nan, expected"),
        ((1.0, 3, 0.0, 20), "clip: 0.0 with 20 binary places"),
        ((1.0, 3, 4.0, 61), "clip: 4.0 with 61 binary places"),
        ((1.0, 100, 1.0, 2), "rounding of 100 values to 2 binary places"),
    ],
)
def test_what_cannot_be_clipped_is_refused(arguments: tuple[float, int, float, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        clip_factor(*arguments)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="length: nan"), np.errstate(invalid="ignore"):
        clip_to_grid(np.array([1.0, np.nan], np.float32), 1.0, 20)
