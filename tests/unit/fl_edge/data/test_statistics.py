from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_edge.data.statistics import ROUNDS, SharedStatistics, Statistics, from_digits, to_digits

NAMES = ("number.a", "number.b")


def averaged(shared: SharedStatistics, sites: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the buffers after a round of all sites, as FedAvg averages them in float32."""
    examples = sum(map(len, sites))
    updates = [(shared.with_those_of(values), len(values) / examples) for values in sites]
    return {
        name: np.sum([weight * update[name].astype(np.float64) for update, weight in updates], axis=0).astype(
            np.float32
        )
        for name in (ROUNDS, *NAMES)
    }


@given(st.lists(st.floats(-1e18, 1e18), min_size=1, max_size=5))
def test_digits_are_small_and_give_the_number_back(values: list[float]) -> None:
    numbers = np.array(values)
    digits = to_digits(numbers)
    assert np.abs(digits).max() <= 9, "an aggregator takes at most 100 (--max-delta)"
    np.testing.assert_allclose(from_digits(digits), numbers, rtol=1e-12, atol=1e-25)


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=6))
def test_the_mean_of_digits_is_the_mean(values: list[float]) -> None:
    numbers = np.array(values)
    mean = to_digits(numbers).mean(axis=0, dtype=np.float64).astype(np.float32)
    assert float(from_digits(mean[None])[0]) == pytest.approx(
        numbers.mean(), rel=1e-6, abs=1e-20 + 1e-6 * float(np.abs(numbers).max())
    )


@pytest.mark.parametrize(("mean", "deviation"), [((60, 246), (10, 60)), ((3e5, 2e-3), (1e5, 1e-3))])
def test_the_federations_statistics_are_those_of_all_examples_after_one_round(
    mean: tuple[float, float], deviation: tuple[float, float]
) -> None:
    rng = np.random.default_rng(1)
    sites = [rng.normal(mean, deviation, (size, 2)) for size in (30, 200, 7)]
    sites[0][:20, 1] = np.nan
    sites[2][:, 1] = np.nan  # no value at all
    everything = Statistics.of(np.concatenate(sites))
    shared = SharedStatistics(NAMES, SharedStatistics.first(NAMES))
    assert not shared.known
    for _ in range(4):
        shared = SharedStatistics(NAMES, averaged(shared, sites))
        assert shared.known
        np.testing.assert_allclose(shared.statistics.mean, everything.mean, rtol=1e-5)
        np.testing.assert_allclose(shared.statistics.deviation, everything.deviation, rtol=1e-4)


def test_statistics_of_large_numbers_close_together_settle() -> None:
    times = np.random.default_rng(1).normal(1.7e9, 1e6, (100, 2))
    shared = SharedStatistics(NAMES, SharedStatistics.first(NAMES))
    for _ in range(10):
        shared = SharedStatistics(NAMES, averaged(shared, [times]))
    np.testing.assert_allclose(shared.statistics.deviation, times.std(axis=0), rtol=0.25)


def test_rounds_with_other_edges_move_the_statistics_less_and_less() -> None:
    shared = SharedStatistics(NAMES, SharedStatistics.first(NAMES))
    for value in (0.0, 1.0, 2.0, 3.0):
        shared = SharedStatistics(NAMES, averaged(shared, [np.full((5, 2), value)]))
    np.testing.assert_allclose(shared.statistics.mean, 1.5, rtol=1e-6)


def test_a_constant_column_and_one_without_values_are_left_as_they_are() -> None:
    values = np.array([[5.0, np.nan], [5.0, np.nan]])
    statistics = Statistics.of(values)
    np.testing.assert_array_equal(statistics.mean, [5, 0])
    np.testing.assert_array_equal(statistics.deviation, [1, 1])
    np.testing.assert_array_equal(statistics.standardized(np.array([[5.0, 1e9]])), [[0, 32]])
