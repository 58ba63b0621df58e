"""Series in tables: which steps an edge has, how they are cut into windows, and what a wrong file is told."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from fl_edge.data.series import Series, SeriesChoices, Windows
from fl_edge.errors import DataCorruptError, DataMissingError
from tests.support.builders import partition

ROWS = 100


def choices(
    columns: tuple[str, ...] = (), target: str = "", time: str = "t", length: int = 5, stride: int = 1
) -> SeriesChoices:
    return SeriesChoices(columns, target, time, length, stride)


def write(path: Path, first: int, rows: int = ROWS, replace: dict[int, str] | None = None) -> None:
    """A table whose value is ``first`` plus the number of the row, from 0; ``replace`` gives rows other lines."""
    lines = [(replace or {}).get(i, f"{i},{first + i},{-i},ok") for i in range(rows)]
    path.write_text("\n".join(["t,a,b,state", *lines]) + "\n")


def values(windows: Windows, length: int = 5) -> list[list[int]]:
    """The values of the first column in each window."""
    return [[int(value) for value in windows.steps[start : start + length, 0]] for start in windows.starts]


def test_no_window_straddles_two_tables_or_the_border_of_the_holdout(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 0)
    write(tmp_path / "b.csv", 1000)
    series = Series(choices(), tmp_path)
    assert series.columns == ("a", "b"), "those with numbers, without the time"
    train, holdout = series.part(partition(scheme="own", holdout=0.2))
    expected = [[k + i for i in range(5)] for first in (0, 1000) for k in range(first, first + 76)]
    assert values(train) == expected
    ends = [[k + i for i in range(5)] for first in (80, 1080) for k in range(first, first + 16)]
    assert values(holdout) == ends, "the holdout is the end of each table"


def test_natural_parts_are_tables_and_iid_parts_are_stretches_of_time(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 0)
    write(tmp_path / "b.csv", 1000)
    series = Series(choices(), tmp_path)
    windows, _ = series.part(partition(1, scheme="natural", holdout=0.0))
    assert values(windows)[0][0] == 1000
    parts = [values(series.part(partition(k, scheme="iid", count=3, holdout=0.0))[0]) for k in range(3)]
    steps = [{step for window in part for step in window} for part in parts]
    assert sum(map(len, steps)) == 2 * ROWS, "they are disjoint, and together all steps"
    assert [min(part) for part in steps] == [0, 66, 1033]
    assert all(window[4] - window[0] == 4 for part in parts for window in part)


def test_rows_are_put_into_the_order_of_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dates = [f"2026-01-{day:02}T00:00:00,{day},0,ok" for day in range(1, 29)]
    (tmp_path / "a.csv").write_text("\n".join(["t,a,b,state", *reversed(dates)]))
    with caplog.at_level(logging.INFO):
        windows, _ = Series(choices(), tmp_path).part(partition(scheme="own", holdout=0.0))
    assert values(windows) == [[k + i for i in range(5)] for k in range(1, 25)]
    assert "the rows are not in the order of 't': sorting them" in caplog.text


def test_windows_with_a_gap_are_left_out_and_the_stride_thins_them(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 0, 20, {7: "7,,0,ok"})
    part = partition(scheme="own", holdout=0.0)
    windows, _ = Series(choices(), tmp_path).part(part)
    assert windows.starts.tolist() == [0, 1, 2, *range(8, 16)]
    windows, _ = Series(choices(stride=3), tmp_path).part(part)
    assert windows.starts.tolist() == [0, 9, 12, 15]
    assert windows.starts.dtype == np.int64


def test_a_holdout_that_is_too_short_is_none_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "a.csv", 0, 20)
    _, holdout = Series(choices(), tmp_path).part(partition(scheme="own", holdout=0.2))
    assert not len(holdout)
    assert "the holdout, 4 steps, is too short for a window of 5" in caplog.text


@pytest.mark.parametrize(
    ("rows", "chosen", "words"),
    [
        ({}, choices(columns=("c",)), "a.csv: row 1: column 'c' (columns) is missing; the file has: t, a, b, state"),
        ({}, choices(target="c"), "a.csv: row 1: column 'c' (target) is missing"),
        ({}, choices(time="when"), "a.csv: row 1: column 'when' (time) is missing"),
        ({3: "3,x,0,ok"}, choices(), "a.csv: row 5, column 'a': 'x' is no number, expected one as in most rows"),
        ({}, choices(columns=("state",)), "a.csv: row 2, column 'state': 'ok' is no number"),
        ({3: "soon,3,0,ok"}, choices(), "a.csv: row 5, column 't': 'soon' is no time, expected a number or a date"),
        ({3: "3,3,0"}, choices(), "a.csv: row 5: has 3 cells, expected 4"),
        ({}, choices(length=101), "a.csv: has 100 rows, expected at least 101, the length of a window"),
        (
            {k: f"{k},{k},,ok" for k in range(0, ROWS, 5)},
            choices(),
            "a.csv: no window of 5 rows is left without those that have gaps: column 'b' has 20 in 100 rows",
        ),
    ],
)  # fmt: skip
def test_a_wrong_table_is_told_file_row_and_column(
    tmp_path: Path, rows: dict[int, str], chosen: SeriesChoices, words: str
) -> None:
    write(tmp_path / "a.csv", 0, ROWS, rows)
    series = Series(chosen, tmp_path)
    with pytest.raises(DataCorruptError) as raised:
        series.part(partition(scheme="own", holdout=0.0))
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_another_table_must_have_the_same_columns(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 0)
    (tmp_path / "b.csv").write_text("t,a\n1,2\n")
    with pytest.raises(DataCorruptError, match=r"b.csv: row 1: column 'b' is missing; the file has: t, a"):
        Series(choices(), tmp_path).part(partition(scheme="own"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scheme": "dirichlet:0.1"}, "scheme: dirichlet:0.1 cannot divide a series"),
        ({"examples": 50}, "examples: a series cannot be thinned out"),
        ({"count": 60}, "count: 60 stretches are too short"),
    ],
)
def test_a_division_that_does_not_fit_is_no_fault_of_the_data(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    write(tmp_path / "a.csv", 0)
    with pytest.raises(ValueError, match=words):
        Series(choices(), tmp_path).part(partition(**changes))


def test_a_missing_table_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match="has no table, expected"):
        Series(choices(), tmp_path)
    write(tmp_path / "test.csv", 0)
    series = Series(choices(), tmp_path)
    assert len(series.test) == ROWS - 4
    with pytest.raises(DataMissingError, match="has no table but the test split"):
        series.part(partition(scheme="own"))
    write(tmp_path / "a.csv", 0)
    with pytest.raises(DataMissingError, match="has 1 tables, but this edge's is number 3"):
        Series(choices(), tmp_path).part(partition(2, scheme="natural"))
