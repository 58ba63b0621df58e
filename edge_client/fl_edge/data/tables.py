"""Reads tables: CSV with the standard library and NumPy alone, Parquet if pyarrow is installed.

Rows are numbered as a spreadsheet shows them: row 1 is the header. Every message names file, row and column.
"""

from __future__ import annotations

import csv
import io
import logging
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from fl_edge.errors import DataCorruptError, DataMismatchError, DataMissingError

LOG: Final = logging.getLogger(__name__)

MAX_FILE_BYTES: Final = 2**30
MAX_COLUMNS: Final = 2_000
MAX_COLUMN_NAME: Final = 100
"""Characters of a column's name; it is part of the name of an array."""
MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "?"})
"""What a cell without a value may contain, in any case."""
TEST_NAME: Final = "test"
"""The name, without its ending, of the file with the test split."""
_ENDINGS: Final = (".csv", ".parquet")
_EMPTY: Final = "is empty, expected a row of column names, then a row per example"
_SEPARATORS: Final = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The cells of one column: the distinct ``texts``, and the number of each cell's text, shape (examples,)."""

    texts: tuple[str, ...]
    codes: NDArray[np.int64]

    def numbers(self) -> NDArray[np.float64]:
        """Returns the cells as float64, NaN where a value is missing or no finite number."""
        values = [number_of(text) for text in self.texts]
        return np.array([np.nan if value is None else value for value in values], np.float64)[self.codes]

    def where(self, condition: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Returns which cells have a text that meets ``condition``."""
        return np.fromiter(map(condition, self.texts), bool, len(self.texts))[self.codes]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table: its columns by name, in the order of the file, and the row in the file of each example."""

    path: Path
    columns: dict[str, Column]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def fail_at(self, example: int, column: str, problem: str) -> NoReturn:
        """Raises ``DataMismatchError`` for one cell."""
        cells = self.columns[column]
        text = cells.texts[cells.codes[example]]
        raise DataMismatchError(
            f"{self.path}: row {self.rows[example]}, column {column!r}: {text[:80]!r} {problem}"
        )


def is_missing(text: str) -> bool:
    """Whether a cell with this text has no value."""
    return text.lower() in MISSING


def number_of(text: str) -> float | None:
    """Returns the finite number that the text is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    # Python's underscores and infinities are no numbers in a table.
    return value if np.isfinite(value) and "_" not in text else None


@dataclass(frozen=True, slots=True)
class TableFiles:
    """The tables in a directory: those to train on, sorted by name, and ``test.*``, if there is one."""

    train: tuple[Path, ...]
    test: Path | None

    @property
    def first(self) -> Path:
        """The first of them."""
        return next(path for path in (*self.train, self.test) if path is not None)


def find_tables(data_dir: Path) -> TableFiles:
    """Returns the tables in a directory. Raises ``DataMissingError`` if there is none."""
    try:
        paths = sorted(data_dir.iterdir())
    except OSError as error:
        raise DataMissingError(f"{data_dir}: cannot be read: {error}") from error
    found = [path for path in paths if path.suffix.lower() in _ENDINGS and path.is_file()]
    if not found:
        raise DataMissingError(f"{data_dir}: has no table, expected *.csv or *.parquet")
    train = tuple(path for path in found if path.stem.lower() != TEST_NAME)
    return TableFiles(train, next((path for path in found if path not in train), None))


@lru_cache(maxsize=8)
def read_table(path: Path) -> Table:
    """Reads a table. Raises ``DataCorruptError`` naming the file, the row and the column that is wrong."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DataCorruptError(f"{path}: has {size} bytes, expected at most {MAX_FILE_BYTES}")
        if size == 0:
            raise DataCorruptError(f"{path}: {_EMPTY}")
        table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    except OSError as error:
        raise DataCorruptError(f"{path}: cannot be read: {error}") from error
    if not len(table):
        raise DataCorruptError(f"{path}: has column names, but no example below them")
    return table


def _read_csv(path: Path) -> Table:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = data[: error.start].count(b"\n") + 1
        raise DataCorruptError(
            f"{path}: row {row}: byte {data[error.start]:#04x} is not UTF-8: save the file as UTF-8"
        ) from None
    header = text.lstrip("\r\n").split("\n", 1)[0]
    separator = max(_SEPARATORS, key=lambda mark: len(next(csv.reader([header], delimiter=mark), ())))
    if separator != ",":
        LOG.info("%s: the separator is the %s", path, _SEPARATORS[separator])
    # StringIO and not splitlines(), which also splits at characters that are no ends of lines in CSV.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    builder: _Builder | None = None
    row = 0
    try:
        for row, cells in enumerate(reader, start=1):
            if not cells:  # an empty line
                continue
            if builder is None:
                builder = _Builder(path, _checked_names(path, row, cells))
            else:
                builder.add(row, cells)
    except csv.Error as error:
        raise DataCorruptError(f"{path}: row {row + 1}: is no CSV: {error}") from None
    if builder is None:
        raise DataCorruptError(f"{path}: {_EMPTY}")
    return builder.table()


def _checked_names(path: Path, row: int, cells: Sequence[str]) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in cells)
    if len(names) > MAX_COLUMNS:
        raise DataCorruptError(f"{path}: row {row}: has {len(names)} columns, expected at most {MAX_COLUMNS}")
    for number, name in enumerate(names, start=1):
        if not name or not name.isprintable() or len(name) > MAX_COLUMN_NAME:
            raise DataCorruptError(
                f"{path}: row {row}, column {number}: the name is {name[:40]!r}, "
                f"expected 1 to {MAX_COLUMN_NAME} printable characters"
            )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataCorruptError(
            f"{path}: row {row}: two columns are named {twice[0]!r}, expected different names"
        )
    return names


class _Builder:
    """Collects rows. Each distinct text is kept once, so that a large table does not need a string for each cell."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, names
        self._texts: list[dict[str, int]] = [{} for _ in names]
        self._codes = [array("l") for _ in names]
        self._rows = array("l")

    def add(self, row: int, cells: Iterable[str]) -> None:
        cells = list(cells)
        if len(cells) != len(self._names):
            raise DataCorruptError(
                f"{self._path}: row {row}: has {len(cells)} cells, expected {len(self._names)}, as many as columns"
            )
        self._rows.append(row)
        for texts, codes, cell in zip(self._texts, self._codes, cells, strict=True):
            codes.append(texts.setdefault(cell.strip(), len(texts)))

    def table(self) -> Table:
        columns = {
            name: Column(tuple(texts), np.array(codes, np.int64))
            for name, texts, codes in zip(self._names, self._texts, self._codes, strict=True)
        }
        return Table(self._path, columns, np.array(self._rows, np.int64))


def _read_parquet(path: Path) -> Table:
    with path.open("rb") as stream:
        if stream.read(4) != b"PAR1":
            raise DataCorruptError(f"{path}: is no Parquet file: it does not begin with PAR1")
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataMissingError(
            f"{path}: Parquet needs pyarrow: pip install pyarrow, or save the table as CSV"
        ) from None
    try:
        content = parquet.read_table(path)
        columns = [column.to_pylist() for column in content.columns]
    except Exception as error:  # pyarrow raises errors of many types for a damaged file
        problem = " ".join(str(error).split())
        raise DataCorruptError(f"{path}: cannot be read as Parquet: {problem:.200}") from None
    builder = _Builder(path, _checked_names(path, 1, content.column_names))
    for row, cells in enumerate(zip(*columns, strict=True), start=2):
        builder.add(row, ("" if cell is None else str(cell) for cell in cells))
    return builder.table()
