"""What edges put into the vector of a survey adds up, and its arrays tell the columns."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.protocol.task_spec import format_task
from fl_shared.survey.layout import Columns, NumberSums, Sums
from fl_shared.survey.terms import SurveyTerms
from fl_shared.tensors.manifest import ArraySpec, Manifest

TERMS = SurveyTerms(5, {"age, in years": (0.0, 120.0)})
COLUMNS = Columns(
    ("no", "yes.", "yes.no"),
    ("age, in years", "length"),
    {"b.c": (), "smokes": ("never", "now"), "zone": ("a", "b")},
)


def sums(rng: np.random.Generator) -> Sums:
    def counts(names: tuple[str, ...]) -> dict[str, int]:
        return {name: int(rng.integers(0, 2**30)) for name in names}

    values = {name: rng.normal(50, 60, 40) for name in COLUMNS.numbers}
    values["length"][:3] = np.nan
    return Sums(
        1,
        40,
        counts(COLUMNS.classes),
        {name: NumberSums.of(some, name, TERMS) for name, some in values.items()},
        {name: (39, 1, counts(some)) for name, some in COLUMNS.categories.items()},
    )


def test_the_arrays_tell_the_columns() -> None:
    assert Columns.of(COLUMNS.manifest(TERMS)) == COLUMNS


@given(st.integers(1, 30), st.integers(0, 2**32))
def test_vectors_add_up(edges: int, seed: int) -> None:
    rng, manifest = np.random.default_rng(seed), COLUMNS.manifest(TERMS)
    parts = [sums(rng) for _ in range(edges)]
    vectors = np.stack([part.vector(manifest) for part in parts]).astype(np.float64)
    total = np.add.reduce(vectors).astype(np.float32)
    read = Sums.read(total, manifest, TERMS)
    assert (read.edges, read.examples) == (edges, 40 * edges)
    assert read.classes == {name: sum(part.classes[name] for part in parts) for name in COLUMNS.classes}
    assert read.categories["smokes"][2]["now"] == sum(part.categories["smokes"][2]["now"] for part in parts)
    length = read.numbers["length"]
    assert (length.moments.count, length.missing) == (37 * edges, 3 * edges)
    assert length.moments.squares == sum(part.numbers["length"].moments.squares for part in parts)
    assert length.histogram.sum() == 37 * edges


def test_values_beyond_a_public_range_are_moved_into_it() -> None:
    found = NumberSums.of(np.array([-5.0, 0.0, 60.0, 200.0, np.inf]), "age, in years", TERMS)
    assert (found.moved, found.missing, found.moments.mean) == (2, 1, 45.0)


def test_other_arrays_are_no_survey() -> None:
    manifest = Manifest(arrays=(ArraySpec(name="number.x", shape=(3,)), ArraySpec(name="w", shape=(1,))))
    with pytest.raises(ValueError, match="not those of a survey"):
        Sums.read(np.zeros(4, np.float32), manifest, TERMS)


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        (Columns(("no",)), "class 'yes' is missing here; the survey has: no, yes"),
        (Columns(("no", "yes"), ("x",)), "column of numbers 'x' is here, but not in the survey"),
        (Columns(("no", "yes"), (), {"sex": ()}), "column of categories 'sex' is here"),
    ],
)
def test_a_difference_names_what_differs(own: Columns, problem: str) -> None:
    run = Columns(("no", "yes"))
    assert problem in str(own.difference(run))
    assert run.difference(run) is None


def test_terms_are_members_of_the_task() -> None:
    spec = format_task("tabular", {"target": "y", **TERMS.members})
    assert SurveyTerms.of(spec) == TERMS
    assert SurveyTerms.of("tabular?target=y") is None


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ("survey-least=1", "survey-least: '1', expected a number of edges from 2 on"),
        ("survey-least=x", "survey-least: 'x'"),
        ("survey-least=5&survey-ranges=age:3", "survey-ranges: 'age:3', expected COLUMN:LOW:HIGH"),
        ("survey-least=5&survey-ranges=age:3:3", "LOW below HIGH"),
        ("survey-least=5&survey-ranges=age:0:nan", "LOW below HIGH"),
    ],
)
def test_terms_that_are_wrong(members: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        SurveyTerms.of(f"tabular?{members}")
