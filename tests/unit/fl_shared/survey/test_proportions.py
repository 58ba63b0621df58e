"""What an edge sends in a survey under a privacy budget is no longer than 1, whatever its data are."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fl_shared.survey.layout import Columns, NumberSums, Sums
from fl_shared.survey.proportions import (
    BINS,
    SIZES,
    Proportions,
    manifest_of,
    size_bounds,
    vector_of,
    weight_of,
)
from fl_shared.survey.terms import SurveyTerms

NARROW = (3e-13, 6e-13)
"""Narrower than the unit to which values are rounded."""
TERMS = SurveyTerms(5, {"age": (0.0, 120.0), "wide": (-(2.0**50), 2.0**50), "narrow": NARROW}, private=True)
COLUMNS = Columns(
    ("no", "yes"),
    ("age", "length", "narrow", "wide"),
    {"b.c": (), "smokes": ("never", "now"), "zone": ("a", "b")},
)
MANIFEST = manifest_of(COLUMNS, TERMS)

numbers = arrays(
    np.float64,
    st.integers(0, 30),
    elements=st.floats() | st.sampled_from([0.0, 120.0, 1e308, -1e308, math.nan, 2.0**50, *NARROW]),
)
counts = st.integers(0, 2**28)


@st.composite
def edges(draw: st.DrawFn) -> Sums:
    """The sums of an edge with any data, also with none."""
    with np.errstate(over="ignore"):
        columns = {name: NumberSums.of(draw(numbers), name, TERMS) for name in COLUMNS.numbers}
    categories = {}
    for name, values in COLUMNS.categories.items():
        found = {value: draw(counts) for value in values}
        categories[name] = sum(found.values()), draw(counts), found
    classes = {name: draw(counts) for name in COLUMNS.classes}
    return Sums(1, draw(counts), classes, columns, categories)


@given(edges())
def test_no_edge_is_longer_than_the_clip(edge: Sums) -> None:
    vector = vector_of(edge, MANIFEST, TERMS).astype(np.float64)
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) <= 1 + 1e-6, "float32 has 24 bits"


@given(edges())
def test_its_proportions_are_those_of_its_data(edge: Sums) -> None:
    found = Proportions.read(vector_of(edge, MANIFEST, TERMS), MANIFEST, TERMS)
    place = int(np.argmax(found.sizes))
    low, high = size_bounds(place)
    assert low <= edge.examples <= high or (place == SIZES - 1 and edge.examples >= low)
    assert found.sizes.sum() == pytest.approx(1)
    labels = sum(edge.classes.values())
    for name, count in edge.classes.items():
        assert found.classes[name] == pytest.approx(count / labels if labels else 0, abs=1e-6)
    for name, sums in edge.numbers.items():
        column, total = found.numbers[name], sums.moments.count + sums.missing
        assert column.missing == pytest.approx(sums.missing / total if total else 1, abs=1e-6)
        if name not in TERMS.ranges:
            assert (column.first, column.second, column.bins) == (None, None, None)
            continue
        assert column.bins is not None
        assert column.bins.shape == (BINS,)
        assert column.missing + column.bins.sum() == pytest.approx(1, abs=1e-5)
        if name == "age" and total:
            there = sums.moments.count / total
            mean = (sums.moments.mean - 60) / 60 if there else 0
            assert column.first == pytest.approx(there * mean, abs=1e-5)
    for name, (count, missing, values) in edge.categories.items():
        of_missing, shares = found.categories[name]
        total = count + missing
        assert of_missing == pytest.approx(missing / total if total else 1, abs=1e-6)
        for value, number in values.items():
            assert shares[value] == pytest.approx(number / total if total else 0, abs=1e-6)


def test_the_weights_are_reached_together() -> None:
    """Each part of an edge may be as long as its weight says, so a smaller divisor would break the bound."""
    assert weight_of(COLUMNS, TERMS) == 1 + 1 + 3 * 3 + 1 + 3
    constant = {
        name: NumberSums.of(np.full(5, TERMS.ranges.get(name, (0.0, 1.0))[1]), name, TERMS)
        for name in ("age", "wide")
    }
    columns = Columns(("a",), ("age", "wide"), {})
    edge = Sums(1, 5, {"a": 5}, constant, {})
    vector = vector_of(edge, manifest_of(columns, TERMS), TERMS)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_the_arrays_tell_the_columns() -> None:
    assert Columns.of(MANIFEST) == COLUMNS
    exact = COLUMNS.manifest(TERMS)
    with pytest.raises(ValueError, match="not those of a survey with noise"):
        Proportions.read(np.zeros(exact.values, np.float32), exact, TERMS)


def test_the_terms_are_in_the_name_of_the_task() -> None:
    assert SurveyTerms.of("digits?survey-least=5&survey-private=yes") == SurveyTerms(5, private=True)
    assert SurveyTerms(5, private=True).members["survey-private"] == "yes"
    with pytest.raises(ValueError, match=re.escape("survey-private: 'no', expected yes")):
        SurveyTerms.of("digits?survey-least=5&survey-private=no")
