"""Each value lies in its bin, and bins are as wide as they are said to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.survey.bins import FACTOR, RELATIVE, Bins, EqualBins


@pytest.mark.parametrize("bins", [RELATIVE, EqualBins(-3.5, 7.0)])
def test_edges_ascend(bins: Bins) -> None:
    assert (np.diff(bins.edges) > 0).all()


@given(st.floats(-(2.0**50), 2.0**50))
def test_a_value_lies_in_its_relative_bin(value: float) -> None:
    (place,) = RELATIVE.places(np.array([value]))
    low, high = RELATIVE.edges[place : place + 2]
    assert low <= value <= high
    if abs(value) >= 2.0**-30:
        assert max(abs(low), abs(high)) / min(abs(low), abs(high)) == pytest.approx(FACTOR)


@given(st.floats(-3.5, 7.0))
def test_a_value_lies_in_its_equal_bin(value: float) -> None:
    bins = EqualBins(-3.5, 7.0)
    (place,) = bins.places(np.array([value]))
    assert bins.edges[place] <= value <= bins.edges[place + 1]


def test_values_outside_count_in_the_outer_bins() -> None:
    assert RELATIVE.places(np.array([-1e300, 0.0, 1e300])).tolist() == [0, 1280, 2560]
    assert EqualBins(0.0, 1.0).places(np.array([-1.0, 0.0, 1.0, 2.0])).tolist() == [0, 0, 255, 255]
