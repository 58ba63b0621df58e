"""Exact sums of numbers give the mean and the deviation of all of them, however they lie on edges."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.survey.digits import MOST_SUMMED, from_digits, to_digits
from fl_shared.survey.moments import LARGEST, PLACES, SQUARES_DIGITS, SUM_DIGITS, Moments

on_the_grid = st.integers(-(2**90), 2**90).map(lambda n: float(n) * 2.0**-PLACES)
any_number = st.floats(-LARGEST, LARGEST, allow_subnormal=False)


@given(st.lists(on_the_grid | any_number, max_size=30))
def test_the_sums_are_those_of_fractions(values: list[float]) -> None:
    rounded = [Fraction(round(Fraction(value) * 2**PLACES)) for value in values]
    moments = Moments.of(np.array(values, np.float64))
    assert (moments.count, moments.total) == (len(values), sum(rounded))
    assert moments.squares == sum(one**2 for one in rounded)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), min_size=1, max_size=8))
def test_the_edges_sums_add_up_to_those_of_all_numbers(edges: list[list[float]]) -> None:
    parts = [Moments.of(np.array(values)) for values in edges]
    whole = Moments.of(np.array([value for values in edges for value in values]))
    assert sum(part.total for part in parts) == whole.total
    assert sum(part.squares for part in parts) == whole.squares
    pooled = np.array([value for values in edges for value in values])
    assert whole.mean == pytest.approx(pooled.mean(), rel=1e-9, abs=1e-9)
    assert whole.deviation == pytest.approx(pooled.std(), rel=1e-7, abs=1e-7)


def test_a_deviation_far_from_zero_loses_nothing() -> None:
    values = 1e9 + np.array([-1.0, 1.0] * 500)
    moments = Moments.of(values)
    assert (moments.mean, moments.deviation) == (1e9, 1.0)


def test_numbers_of_many_blocks() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 200_001)
    moments = Moments.of(values)
    assert moments.mean == pytest.approx(values.mean(), rel=1e-12)
    assert moments.deviation == pytest.approx(values.std(), rel=1e-12)


def test_equal_numbers_have_no_deviation() -> None:
    assert Moments.of(np.full(7, 0.1)).deviation == 0.0


@given(st.lists(st.integers(-(2**120), 2**120), min_size=1, max_size=40))
def test_sums_of_digits_are_digits_of_the_sum(numbers: list[int]) -> None:
    digits = np.stack([to_digits(number, SUM_DIGITS) for number in numbers]).astype(np.float64)
    assert from_digits(np.add.reduce(digits).astype(np.float32)) == sum(numbers)


def test_digits_of_the_most_edges_add_up_exactly() -> None:
    number = 2 ** (10 * (SQUARES_DIGITS - 1)) - 1  # all of its digits but the last are as large as can be
    digits = to_digits(number, SQUARES_DIGITS)
    assert digits.max() == 1023.0
    summed = (digits.astype(np.float64) * MOST_SUMMED).astype(np.float32)
    assert from_digits(summed) == MOST_SUMMED * number
