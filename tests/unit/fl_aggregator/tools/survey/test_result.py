"""What a survey says of a column is what NumPy says of all its values, as far as enough examples stand behind it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fl_aggregator.configuration.survey import Survey
from fl_aggregator.tools.survey.result import NumberColumn, Result, result_of
from fl_aggregator.tools.survey.text import lines
from fl_shared.survey.layout import NumberSums, Sums

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
numbers = arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e6, 1e6) | st.just(math.nan))


def surveyed(values: Floats, survey: Survey) -> Result:
    sums = Sums(
        6, len(values), {}, {"x": NumberSums.of(values, "x", survey.terms)}, {"c": (len(values), 0, {})}
    )
    return result_of(sums, survey, "0" * 12, "own", masked=False, figures={})


def column_of(values: Floats, survey: Survey) -> NumberColumn:
    return surveyed(values, survey).numbers["x"]


@given(numbers, st.booleans())
def test_a_column_is_that_of_numpy(values: Floats, has_range: bool) -> None:
    survey = Survey(cells=1, ranges={"x": (-1e6, 1e6)} if has_range else {})
    there, column = values[~np.isnan(values)], column_of(values, survey)
    assert (column.values, column.missing) == (len(there), len(values) - len(there))
    if not len(there):
        assert column.mean is None
        return
    assert column.mean == pytest.approx(there.mean(), rel=1e-9, abs=1e-9)
    assert column.deviation == pytest.approx(there.std(), rel=1e-6, abs=1e-6)
    for one in column.quantiles:
        exact = np.quantile(there, one.fraction, method="inverted_cdf")
        assert abs(one.value - exact) <= one.error * (1 + 1e-9) + 1e-9
        if not has_range:
            assert one.error <= 0.0217 * abs(one.value) + 1e-9
    assert sum(bar.values for bar in column.histogram) == len(there)


@given(numbers, st.integers(2, 20))
def test_few_values_are_not_shown(values: Floats, cells: int) -> None:
    column = column_of(values, Survey(cells=cells))
    there = values[~np.isnan(values)]
    for shown in (column.values, column.missing):
        assert shown is None or shown == 0 or shown >= cells
    if len(there) < cells:
        assert (column.mean, column.deviation, column.quantiles, column.histogram) == (None, None, (), ())
    assert all(bar.values >= cells for bar in column.histogram)
    for one in column.quantiles:
        assert (there <= one.value + one.error * (1 + 1e-9)).sum() >= cells
        assert (there >= one.value - one.error * (1 + 1e-9)).sum() >= cells


def test_extremes_are_nobodys_bar() -> None:
    column = column_of(np.array([1.0] * 50 + [2.0] * 50 + [1e9]), Survey())
    assert [(bar.low is None, bar.high is None) for bar in column.histogram] == [(True, False), (False, True)]
    assert max(bar.high or 0 for bar in column.histogram) < 1.1
    assert [one.fraction for one in column.quantiles] == [0.05, 0.25, 0.5, 0.75, 0.95]


def test_the_lines_say_what_is_not_shown() -> None:
    values = np.array([20.0] * 30 + [math.nan] * 3)
    text = "\n".join(lines(surveyed(values, Survey())))
    assert "figures about fewer than 5 examples are not shown (–)" in text
    assert "survey of 6 edges: 33 examples" in text
    row = next(line for line in text.splitlines() if line.startswith("  x"))
    assert row.split()[:5] == ["x", "–", "–", "20.00", "0.0000"]
    assert "all numbers are shown" in "\n".join(lines(surveyed(values, Survey(cells=1))))


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 40), min_size=1),
    st.integers(0, 12),
    st.integers(2, 20),
)
def test_few_missing_values_do_not_follow_from_the_others(
    values: dict[str, int], missing: int, cells: int
) -> None:
    count = sum(values.values())
    numbers = np.array([1.0] * count + [math.nan] * missing)
    survey = Survey(cells=cells)
    sums = Sums(
        6,
        count + missing,
        {},
        {"x": NumberSums.of(numbers, "x", survey.terms)},
        {"c": (count, missing, values)},
    )
    found = result_of(sums, survey, "0" * 12, "own", masked=False, figures={})
    if 0 < missing < cells:
        assert sum(bar.values for bar in found.numbers["x"].histogram) == 0
        of_values = found.categories["c"].cells
        assert of_values is not None
        left = found.examples - sum(of_values.shown.values())
        assert left >= cells or not any(of_values.shown.values()), "what is left are some value's, too"
