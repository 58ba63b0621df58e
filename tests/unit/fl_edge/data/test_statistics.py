from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_aggregator.aggregation.exact_sum import ExactSum
from fl_aggregator.configuration.settings import Settings
from fl_edge.data.statistics import ROUNDS, SCALES, SharedStatistics, Statistics, from_places, to_places
from fl_shared.tensors.fixed_point import scale_bits_of

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


NUMBERS = st.builds(
    lambda sign, exponent: sign * 2.0**exponent, st.sampled_from((-1, 1)), st.floats(-64, 126)
)


@given(st.lists(NUMBERS | st.just(0.0), min_size=1, max_size=5))
def test_places_are_within_the_cap_and_give_the_number_back(values: list[float]) -> None:
    numbers = np.array(values)
    places = to_places(numbers)
    assert 2 * np.abs(places).max() < Settings().max_buffer, "a change may be twice as large"
    np.testing.assert_allclose(from_places(places), numbers, rtol=1e-7)


@given(st.lists(st.tuples(NUMBERS, st.integers(1, 5000)), min_size=1, max_size=6), NUMBERS)
def test_what_an_aggregator_makes_of_places_is_the_mean(
    sites: list[tuple[float, int]], before: float
) -> None:
    """As precisely as float32 can give the largest of the numbers, though it adds in fixed point."""
    settings = Settings()
    slots = settings.per_round + settings.over_select
    bits = scale_bits_of(settings.max_examples, settings.max_delta, slots)
    total = ExactSum(len(SCALES), bits, slots, settings.max_delta)
    base = to_places(np.array([before]))[0]
    for number, examples in sites:
        total.add(to_places(np.array([number]))[0] - base, float(examples))
    weights = [examples for _, examples in sites]
    after = (base + total.over(float(sum(weights)))).astype(np.float32)
    numbers = np.array([number for number, _ in sites])
    largest = max(abs(before), float(np.abs(numbers).max()))
    mean = float(np.average(numbers, weights=weights))
    assert float(from_places(after[None])[0]) == pytest.approx(mean, rel=0, abs=5e-7 * largest)


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
