from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from fl_edge.data import tables
from fl_edge.data.tables import find_tables, is_missing, number_of, read_table
from fl_edge.errors import DataCorruptError, DataMissingError


def written(tmp_path: Path, content: str | bytes, name: str = "site.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_table_has_columns_and_the_rows_of_a_spreadsheet(tmp_path: Path) -> None:
    table = read_table(
        written(tmp_path, 'age, city \r\n63,"Köln, Mülheim"\r\n\r\n?, Bonn\r\n41,"two\nlines"\r\n')
    )
    assert list(table.columns) == ["age", "city"]
    assert len(table) == 3
    assert table.rows.tolist() == [2, 4, 5], "the empty line is row 3"
    np.testing.assert_array_equal(table.columns["age"].numbers(), [63, np.nan, 41])
    city = table.columns["city"]
    assert [city.texts[code] for code in city.codes] == ["Köln, Mülheim", "Bonn", "two\nlines"]
    with pytest.raises(DataCorruptError, match=r"site\.csv: row 4, column 'city': 'Bonn' is no capital"):
        table.fail_at(1, "city", "is no capital")


@pytest.mark.parametrize(
    ("separator", "name"),
    [(",", None), (";", "the separator is the semicolon"), ("\t", "the separator is the tab")],
)
def test_the_separator_is_found_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, separator: str, name: str | None
) -> None:
    caplog.set_level(logging.INFO)
    table = read_table(written(tmp_path, f'"a,b;c"{separator}d\n1{separator}2\n'))
    assert list(table.columns) == ["a,b;c", "d"]
    assert caplog.messages == ([] if name is None else [f"{tmp_path}/site.csv: {name}"])


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    assert list(read_table(written(tmp_path, b"\xef\xbb\xbfage,x\n1,2\n")).columns) == ["age", "x"]


def test_separators_of_unicode_end_no_row(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a,b\nx\u2028y,1\n"))
    assert table.columns["a"].texts == ("x\u2028y",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": is empty, expected a row of column names"),
        ("\n\n", ": is empty, expected a row of column names"),
        ("a,b\n", ": has column names, but no example below them"),
        ("a,b,a\n1,2,3\n", ": row 1: two columns are named 'a', expected different names"),
        ("a,,c\n1,2,3\n", ": row 1, column 2: the name is '', expected 1 to 100 printable characters"),
        (f"a,{'x' * 101}\n1,2\n", ": row 1, column 2: the name is 'xxx"),
        ("a,b\x07\n1,2\n", r": row 1, column 2: the name is 'b\\x07'"),
        ("a,b\n1,2\n1,2,3\n", ": row 3: has 3 cells, expected 2, as many as columns"),
        ("a,b\n1,2\n1\n", ": row 3: has 1 cells, expected 2, as many as columns"),
        ('a,b\n1,2\n"1"x,2\n', ": row 3: is no CSV: "),
        ('a,b\n1,2\n"1,2\n', ": row 3: is no CSV: unexpected end of data"),
        (f"a,b\n1,{'x' * 200_000}\n", ": row 2: is no CSV: field larger than field limit"),
        (
            "a,b\n1,2\nM\u00fcller,2\n".encode("latin-1"),
            ": row 3: byte 0xfc is not UTF-8: save the file as UTF-8",
        ),
        ("a,b\n1,2\n".encode("utf-16"), ": row 1: byte 0xff is not UTF-8"),
    ],
)
def test_what_is_no_table_is_named_with_its_row(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataCorruptError, match=f"{path}{message}"):
        read_table(path)


def test_too_many_columns_and_too_large_a_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = written(tmp_path, ",".join(f"c{i}" for i in range(2001)) + "\n", "wide.csv")
    with pytest.raises(DataCorruptError, match="row 1: has 2001 columns, expected at most 2000"):
        read_table(wide)
    monkeypatch.setattr(tables, "MAX_FILE_BYTES", 7)
    with pytest.raises(DataCorruptError, match="has 8 bytes, expected at most 7"):
        read_table(written(tmp_path, "a,b\n1,2\n", "large.csv"))


def test_the_tables_of_a_directory_are_sorted_and_the_test_split_apart(tmp_path: Path) -> None:
    for name in ("b.CSV", "a.parquet", "test.csv", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.csv").mkdir()
    found = find_tables(tmp_path)
    assert [path.name for path in found.train] == ["a.parquet", "b.CSV"]
    assert found.test == tmp_path / "test.csv"


def test_a_directory_without_tables_says_what_to_put_there(tmp_path: Path) -> None:
    with pytest.raises(DataMissingError, match=r"has no table, expected \*\.csv or \*\.parquet"):
        find_tables(tmp_path)
    with pytest.raises(DataMissingError, match="gone: cannot be read: "):
        find_tables(tmp_path / "gone")


def test_what_is_no_parquet_is_said_without_pyarrow(tmp_path: Path) -> None:
    with pytest.raises(DataCorruptError, match="is no Parquet file: it does not begin with PAR1"):
        read_table(written(tmp_path, "a,b\n1,2\n", "site.parquet"))


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        DataMissingError, match="Parquet needs pyarrow: pip install pyarrow, or save the table as CSV"
    ):
        read_table(written(tmp_path, b"PAR1", "site.parquet"))


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    path = tmp_path / "site.parquet"
    parquet.write_table(pyarrow.table({"age": [63, None], "smokes": [True, False], "name": ["x", "y"]}), path)
    table = read_table(path)
    np.testing.assert_array_equal(table.columns["age"].numbers(), [63, np.nan])
    assert table.columns["smokes"].texts == ("True", "False")
    assert table.rows.tolist() == [2, 3]
    damaged = written(tmp_path, path.read_bytes()[:60], "damaged.parquet")
    with pytest.raises(DataCorruptError, match=r"damaged\.parquet: cannot be read as Parquet: "):
        read_table(damaged)


def test_numbers_and_gaps() -> None:
    assert [number_of(text) for text in ("1", "-2.5e3", "1_000", "inf", "nan", "1,5", "")] == [
        1,
        -2500,
        *[None] * 5,
    ]
    assert all(map(is_missing, ("", "NA", "n/a", "NaN", "null", "?")))
    assert not any(map(is_missing, ("0", "none", "no")))
