"""The sums beside that of the weights."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.masking.tallies import MOST_EXAMPLES, Implausible, Tallies
from fl_shared.tensors.encodings.integers import Int64s

losses = st.floats(0, 1000)
metrics = st.floats(-1000, 1000)
tallies = st.builds(
    Tallies,
    st.integers(1, 10**6),
    st.integers(0, 10**6),
    losses,
    losses,
    metrics,
    losses,
    metrics,
)
ONE = Tallies(80, 20, 0.7, 2.3, 0.1, 1.1, 0.5)


def total_of(some: list[Tallies]) -> Int64s:
    total: Int64s = np.sum([one.integers() for one in some], axis=0)
    return total


@given(some=st.lists(tallies, min_size=1, max_size=20))
def test_10_5_sums_are_means_to_two_to_the_minus_twenty(some: list[Tallies]) -> None:
    found = Tallies.of(total_of(some), len(some), 10**6)
    assert found.examples == sum(one.examples for one in some)
    assert found.holdout == sum(one.holdout for one in some)
    train = math.fsum(one.examples * one.train_loss for one in some) / found.examples
    assert abs(found.train_loss - train) <= 2**-20
    for name in ("before_loss", "before_primary", "after_loss", "after_primary"):
        total = math.fsum(one.holdout * getattr(one, name) for one in some)
        expected = total / found.holdout if found.holdout else 0.0
        assert abs(getattr(found, name) - expected) <= 2**-20


def test_10_5_their_order_and_scale() -> None:
    scale = 2**20
    expected = [80, 20, *(round(n * scale) for n in (56.0, 46.0, 2.0, 22.0, 10.0)), 0]
    assert ONE.integers().tolist() == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("loss", [1001.0, 1e300, math.inf, math.nan])
def test_10_5_losses_are_at_most_a_thousand(loss: float) -> None:
    most = replace(ONE, train_loss=1000.0, before_loss=1000.0)
    assert replace(ONE, train_loss=loss, before_loss=loss).integers().tolist() == most.integers().tolist()
    assert replace(ONE, train_loss=-1.0).integers()[2] == 0


def test_no_tally_of_the_most_examples_overflows() -> None:
    most = Tallies(MOST_EXAMPLES, MOST_EXAMPLES, 1e9, 1e9, -1e9, 1e9, 1e9)
    assert (found := Tallies.of(most.integers(), 1, MOST_EXAMPLES)).before_loss == 1000.0
    assert found.before_primary == -1000.0


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (0, 2, "examples: the sum is 2, expected 3 to 300"),
        (0, 301, "examples: the sum is 301"),
        (1, -1, "holdout: the sum is -1"),
        (1, 301, "holdout: the sum is 301"),
        (2, -1, "train loss: the sum is -1"),
        (2, 2**50, "train loss: the sum is"),
        (3, -1, "loss before"),
        (4, -(2**50), "primary metric before"),
        (5, 2**50, "loss after"),
        (6, 2**50, "primary metric after"),
        (7, 1, "the last tally: the sum is 1, expected 0 to 0"),
    ],
)
def test_sums_that_no_edges_can_have_are_implausible(place: int, value: int, said: str) -> None:
    total = total_of([ONE, ONE, ONE])
    Tallies.of(total, 3, 100)
    total[place] = value
    with pytest.raises(Implausible, match=said):
        Tallies.of(total, 3, 100)
