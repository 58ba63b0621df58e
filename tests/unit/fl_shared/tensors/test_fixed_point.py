"""Weighted values as integers: edges and the aggregator make the same."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_aggregator.aggregation.exact_sum import ExactSum
from fl_shared.tensors.encodings.masked import WIDTHS
from fl_shared.tensors.fixed_point import BLOCK, scale_bits_of
from fl_shared.tensors.manifest import Vector
from tests.support.masked_rounds import quantized

floats = st.floats(-100.0, 100.0, width=32)


def integers_of(delta: Vector, factor: float) -> list[int]:
    out = np.full(len(delta), 7, np.int64)
    quantized(delta, factor, out)
    return [int(one) for one in out]


@given(delta=st.lists(floats, max_size=30), examples=st.integers(1, 2**20), places=st.integers(-20, 32))
def test_5_10_products_are_rounded_to_the_nearest_and_halves_to_even(
    delta: list[float], examples: int, places: int
) -> None:
    factor = examples * 2.0**places
    products = [Fraction(one) * examples * Fraction(2) ** places for one in delta]
    assert integers_of(np.array(delta, np.float32), factor) == [round(product) for product in products]


@pytest.mark.parametrize("values", [1, BLOCK - 1, BLOCK, 2 * BLOCK + 7])
@pytest.mark.parametrize("places", [10, 20, 33])
def test_it_makes_what_the_exact_sum_adds(values: int, places: int) -> None:
    """Also beyond 2^51, where the two ways of rounding part."""
    delta = np.random.default_rng(places).normal(0, 3, values).astype(np.float32)
    delta[0] = 99.0
    total = ExactSum(values, places, slots=1)
    total.add(delta, 12_345.0)
    assert integers_of(delta, 12_345.0 * 2.0**places) == total.integers().tolist()


@pytest.mark.parametrize("bits", WIDTHS)
def test_5_10_the_places_of_a_width_leave_room_for_all_slots(bits: int) -> None:
    for weight, delta, slots in ((1_000_000, 100.0, 10), (1, 1.0, 1), (3, 0.3, 7), (1000, 10.0, 128)):
        places = scale_bits_of(weight, delta, slots, bits)
        assert slots * (weight * delta * 2.0**places + 0.5) < 2 ** (bits - 1)
        assert weight * delta * slots * 2.0 ** (places + 1) > 2 ** (bits - 2), "and not one place more"
