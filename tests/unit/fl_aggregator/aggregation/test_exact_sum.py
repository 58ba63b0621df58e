"""The exact sum of a round's updates; `docs/protocol.md`, 5.10."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from fl_aggregator.aggregation.exact_sum import ExactSum
from fl_aggregator.configuration.settings import Settings
from fl_shared.tensors.fixed_point import BLOCK
from fl_shared.tensors.manifest import Vector


def vector(*values: float) -> Vector:
    return np.array(values, dtype="<f4")


def fixed(total: ExactSum) -> list[int]:
    return [int(value) for value in total.integers()]


def test_a_value_is_examples_times_delta_in_fixed_point() -> None:
    total = ExactSum(values=3, scale_bits=4, slots=2)
    total.add(vector(0.5, -1.25, 0.0), 3)
    assert fixed(total) == [24, -60, 0]
    total.add(vector(1.0, 0.125, -2.0), 1)
    assert fixed(total) == [40, -58, -32]
    assert total.over(4).tolist() == [40 / 16 / 4, -58 / 16 / 4, -32 / 16 / 4]
    assert total.over(4).dtype == np.float64


def test_halves_are_rounded_to_even() -> None:
    total = ExactSum(values=6, scale_bits=0, slots=1)
    total.add(vector(0.5, 1.5, 2.5, -0.5, -1.5, -2.5), 1)
    assert fixed(total) == [0, 2, 2, 0, -2, -2]


def test_the_product_is_rounded_once_to_float64() -> None:
    """(2^40 − 1) × (1 + 2^-23) needs 63 bits and has 53; the scale then is exact."""
    examples, delta = 2**40 - 1, 1 + 2**-23
    exact = Fraction(examples) * Fraction(delta)
    assert Fraction(float(exact)) != exact
    total = ExactSum(values=1, scale_bits=20, slots=1)
    total.add(vector(delta), examples)
    assert fixed(total) == [int(Fraction(float(exact)) * 2**20)]


def test_small_values_are_not_lost_beside_large_ones() -> None:
    """In float32, and in float64 too, they would be."""
    total = ExactSum(values=1, scale_bits=40, slots=3)
    for delta in (2.0**20, 2.0**-38, -(2.0**20)):
        total.add(vector(delta), 1)
    assert fixed(total) == [4]
    assert total.over(3).tolist() == [2.0**-38 / 3]


@pytest.mark.parametrize("values", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 7])
def test_blocks_leave_nothing_out(values: int) -> None:
    random = np.random.default_rng(values)
    deltas = random.normal(size=(3, values)).astype(np.float32)
    total = ExactSum(values, scale_bits=30, slots=3)
    for examples, delta in zip((1, 7, 100), deltas, strict=True):
        total.add(delta, examples)
    products = deltas.astype(np.float64) * np.array([[1.0], [7.0], [100.0]]) * 2.0**30
    expected = np.rint(products).astype(np.int64).sum(axis=0)
    assert np.array_equal(total.integers(), expected)


def test_a_section_may_be_empty() -> None:
    total = ExactSum(values=0, scale_bits=30, slots=1)
    total.add(vector(), 1)
    assert total.over(1).shape == (0,)


def test_more_updates_than_slots_could_overflow_and_are_our_bug() -> None:
    total = ExactSum(values=1, scale_bits=10, slots=2)
    total.add(vector(1), 1)
    total.add(vector(1), 1)
    with pytest.raises(ValueError, match="all 2 slots of the sum are used"):
        total.add(vector(1), 1)
    assert total.update_count == 2


def test_another_shape_is_our_bug() -> None:
    total = ExactSum(values=2, scale_bits=10, slots=2)
    with pytest.raises(ValueError, match="delta has 1 values, expected 2"):
        total.add(vector(1), 1)
    with pytest.raises(ValueError, match="delta has 3 values, expected 4"):
        total.add(vector(1, 2, 3), 1, first=2)
    assert total.update_count == 0


def test_there_is_no_average_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing was folded"):
        ExactSum(values=2, scale_bits=10, slots=2).over(1)


def test_the_scale_of_the_reference_workload() -> None:
    """5.10: scale_bits = 62 − ⌈log2(max_examples × max_delta × slots)⌉."""
    assert Settings().scale_bits == 62 - math.ceil(math.log2(1_000_000 * 100 * 10)) == 32


def test_the_caps_fit_at_their_extreme() -> None:
    """Every slot used, every update with as many examples and as large a delta as may be."""
    settings = Settings()
    total = ExactSum(values=2, scale_bits=settings.scale_bits, slots=10)
    for _ in range(10):
        total.add(vector(100, -100), 1_000_000)
    expected = 10 * 1_000_000 * 100 * 2**settings.scale_bits
    assert fixed(total) == [expected, -expected]
    assert expected <= 2**62
    assert total.over(10_000_000).tolist() == [100.0, -100.0]


def test_both_ways_to_round_give_the_same_bits() -> None:
    """The quick one is for small products; a hint that they may be large takes the other."""
    chance = np.random.default_rng(5)
    deltas = chance.normal(0, 0.01, (4, BLOCK + 5)).astype("<f4")
    halves = (np.arange(BLOCK + 5) - 7).astype("<f4") / 2
    for delta in (*deltas, halves):
        quick, plain = (ExactSum(BLOCK + 5, scale_bits=20, slots=3) for _ in range(2))
        for examples in (1, 7, 1000):
            quick.add(delta, examples)
            plain.add(delta, examples, max_magnitude=2.0**60)
        assert quick.integers().tolist() == plain.integers().tolist()
