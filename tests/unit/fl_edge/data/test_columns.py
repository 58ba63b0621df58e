from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_edge.data.columns import Choices, Schema, difference, schema_from, schema_of
from fl_edge.data.tables import read_table
from fl_edge.errors import DataCorruptError, PayloadError
from tests.support.tables import write_csv

NAMES = ("age", "sex", "ill")
ROWS: list[tuple[object, ...]] = [
    (63, "Male", "yes"),
    ("", "Female", "no"),
    (41, "male", "no"),
    (50, "", "yes"),
]


def schema(tmp_path: Path, rows: list[tuple[object, ...]] = ROWS, **choices: Any) -> Schema:
    path = write_csv(tmp_path / "site.csv", NAMES, rows)
    read_table.cache_clear()
    return schema_of(Choices(**{"target": "ill", **choices}), [read_table(path)])


def test_numbers_categories_and_classes_are_found_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    found = schema(tmp_path)
    assert (found.numbers, found.categories, found.classes) == (("age",), ("sex",), ("no", "yes"))
    assert caplog.messages == [
        "target ill: 2 classes, so this is a classification (else: kind=regression): no, yes",
        "columns: numbers: age; categories: sex (hashed into 64 buckets)",
    ]


@pytest.mark.parametrize(
    ("target", "kind", "classes"),
    [
        ([1, 0, 1, 0], "auto", ("0", "1")),
        ([1, 0, 1, 0], "regression", ()),
        ([0.5, 1, 2, 3], "auto", ()),
        ([0.5, 1, 2, 3], "classification", ("0.5", "1", "2", "3")),
        (list(range(11)), "auto", ()),
    ],
)
def test_the_kind_follows_from_the_target(
    tmp_path: Path, target: list[float], kind: str, classes: tuple[str, ...]
) -> None:
    rows: list[tuple[object, ...]] = [(i, "x", value) for i, value in enumerate(target)]
    assert schema(tmp_path, rows, kind=kind).classes == classes


def test_inputs_are_numbers_and_places(tmp_path: Path) -> None:
    found = schema(tmp_path, categorical=(("sex", ("female", "male")),))
    inputs = found.inputs(read_table(tmp_path / "site.csv"))
    np.testing.assert_array_equal(inputs, [[63, 1], [np.nan, 0], [41, 1], [50, np.nan]])
    assert found.width("sex") == 2
    hashed = schema(tmp_path, buckets=8)
    places = hashed.inputs(read_table(tmp_path / "site.csv"))[:, 1]
    assert places[0] == places[2], "upper and lower case do not matter"
    assert set(places[:3]) <= set(range(8))


@pytest.mark.parametrize(
    ("row", "choices", "message"),
    [
        (
            ("old", "Male", "yes"),
            {},
            r"row 6, column 'age': 'old' is no number, expected one as in most rows: correct the cell, or leave it",
        ),
        (
            (63, "x", "yes"),
            {"categorical": (("sex", ("male", "female")),)},
            "row 6, column 'sex': 'x' is an unknown cat",
        ),
        (
            (63, "x", "maybe"),
            {"classes": ("no", "yes")},
            "row 6, column 'ill': 'maybe' is an unknown class, expected one of: no",
        ),
    ],
)
def test_a_wrong_cell_is_named(
    tmp_path: Path, row: tuple[object, ...], choices: dict[str, Any], message: str
) -> None:
    found = schema(tmp_path, [*ROWS, row], **choices)
    table = read_table(tmp_path / "site.csv")
    with pytest.raises(DataCorruptError, match=rf"{tmp_path}/site\.csv: {message}"):
        found.targets(table), found.inputs(table)


def test_text_in_a_regressions_target_is_named(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(1, "x", 0.5), (1, "x", 1), (2, "y", "cheap")]
    found = schema(tmp_path, rows, kind="regression")
    with pytest.raises(DataCorruptError, match="row 4, column 'ill': 'cheap' is no number"):
        found.targets(read_table(tmp_path / "site.csv"))


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"target": "price"}, r"row 1: column 'price' \(target\) is missing; the file has: age, sex, ill"),
        ({"columns": ("age", "bmi")}, r"row 1: column 'bmi' \(columns\) is missing; the file has: age"),
        ({"categorical": (("zip", ()),)}, r"row 1: column 'zip' \(categorical\) is missing"),
        ({"ignore": ("age", "sex")}, "row 1: has no column but the target 'ill' to learn from"),
    ],
)
def test_a_column_that_is_not_there_is_named(tmp_path: Path, choices: dict[str, Any], message: str) -> None:
    with pytest.raises(DataCorruptError, match=rf"{tmp_path}/site\.csv: {message}"):
        schema(tmp_path, **choices)


def test_one_class_alone_is_none_to_learn(tmp_path: Path) -> None:
    with pytest.raises(DataCorruptError, match="column 'ill': has 1 classes, expected 2 to 1000"):
        schema(tmp_path, [(1, "x", "yes"), (2, "x", "yes")])
    assert schema(tmp_path, [(1, "x", "yes"), (2, "x", "yes")], classes=("no", "yes")).classes == (
        "no",
        "yes",
    )


def test_tables_of_one_directory_must_have_the_same_columns(tmp_path: Path) -> None:
    one = read_table(write_csv(tmp_path / "a.csv", NAMES, ROWS))
    lacking = read_table(write_csv(tmp_path / "b.csv", ("age", "ill"), [(1, "no")]))
    more = read_table(write_csv(tmp_path / "c.csv", (*NAMES, "bmi"), [(1, "x", "no", 2)]))
    with pytest.raises(DataCorruptError, match=r"b\.csv: row 1: column 'sex' is missing, which .*a\.csv has"):
        schema_of(Choices("ill"), [one, lacking])
    with pytest.raises(DataCorruptError, match=r"c\.csv: row 1: column 'bmi' is not in .*a\.csv"):
        schema_of(Choices("ill"), [one, more])
    assert schema_of(Choices("ill", columns=("age",)), [one, more]).columns == ("age",)


def test_the_names_of_arrays_tell_the_schema(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(1, "x", "class.no"), (2, "y", "a=b")]
    for found in (schema(tmp_path), schema(tmp_path, rows), schema(tmp_path, classes=("yes", "no"))):
        assert schema_from(found.choices, sorted(found.array_names())) == found


@pytest.mark.parametrize(
    ("run", "here", "message"),
    [
        (("a,b", "", "n,y"), ("a", "", "n,y"), "row 1: column 'b' is missing; the run has: a, b"),
        (
            ("a", "", "n,y"),
            ("a", "c", "n,y"),
            "row 1: column 'c' is not in the run, which has: a (or --task-option columns=a)",
        ),
        (
            ("a", "c", "n,y"),
            ("a,c", "", "n,y"),
            "column 'c' has numbers, but in the run text (text everywhere: --task-option categorical=c)",
        ),
        (
            ("a,c", "", "n,y"),
            ("a", "c", "n,y"),
            "column 'c' has text, but in the run numbers (text everywhere: --task-option categorical=c)",
        ),
        (
            ("a", "", ""),
            ("a", "", "n,y"),
            "the target 't' is classes, but in the run a number (--task-option kind=…)",
        ),
        (
            ("a", "", "m,n,y"),
            ("a", "", "n,y"),
            "column 't': the class 'm' does not occur (--task-option classes=m,n,y)",
        ),
        (
            ("a", "", "n,y"),
            ("a", "", "n,x,y"),
            "column 't': the class 'x' is unknown to the run (--task-option classes=n,x,y)",
        ),
    ],
)
def test_the_first_difference_between_sites_is_named(
    run: tuple[str, str, str], here: tuple[str, str, str], message: str
) -> None:
    def made(parts: tuple[str, str, str]) -> Schema:
        numbers, categories, classes = (tuple(filter(None, part.split(","))) for part in parts)
        return Schema(Choices("t"), numbers, categories, classes)

    assert difference(made(run), made(here)) == message
    assert difference(made(run), made(run)) is None


def test_a_request_may_leave_out_columns_but_not_name_others(tmp_path: Path) -> None:
    found = schema(tmp_path, categorical=(("sex", ("female", "male")),))
    np.testing.assert_array_equal(found.input_of({"age": 63, "sex": "MALE"}), [[63, 1]])
    np.testing.assert_array_equal(found.input_of({"age": 63, "sex": None, "ill": "yes"}), [[63, np.nan]])
    assert found.example_request() == {"age": 0, "sex": "female"}
    for request, message in (
        ({"aeg": 63}, "'aeg' is unknown, expected any of: age, sex"),
        ({"age": "old"}, "'age': 'old' is no number, expected one$"),
        ({}, "no column has a value, expected any of: age, sex"),
        ({"age": None, "ill": "yes"}, "no column has a value"),
        ({"age": [1]}, "'age': '\\[1\\]' is no number"),
        ({"age": float("inf")}, "'age': 'inf' is no number"),
        ({"sex": "x"}, "'sex': 'x' is an unknown category, expected one of: female, male"),
    ):
        with pytest.raises(PayloadError, match=message):
            found.input_of(request)
    ignoring = schema(tmp_path, ignore=("sex",))
    np.testing.assert_array_equal(ignoring.input_of({"age": 63, "sex": "male"}), [[63]])
    dropping = schema(tmp_path, drop_missing=True)
    with pytest.raises(PayloadError, match="'sex' is missing, expected a value"):
        dropping.input_of({"age": 63})
