"""Series of measurements in the tables of a directory: a row is a time step. They are cut into windows.

No window contains steps of two tables, of two parts, or of training and holdout, and none has a gap.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_edge.data.columns import is_text
from fl_edge.data.partition import partition_index
from fl_edge.data.statistics import Floats
from fl_edge.data.tables import Table, find_tables, is_missing, number_of, read_table
from fl_edge.errors import DataMismatchError, DataMissingError
from fl_shared.protocol.messages import Partition
from fl_shared.protocol.partition_scheme import Iid, Natural, OwnData, parse_scheme

LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SeriesChoices:
    """What the user has chosen; see ``fl_edge.tasks.series.SeriesOptions``. ``length``: the steps of a window."""

    columns: tuple[str, ...]
    target: str
    time: str
    length: int
    stride: int

    @property
    def all_columns(self) -> tuple[str, ...]:
        """The columns that are named, with the target; empty if none are."""
        more = () if not self.columns or self.target in ("", *self.columns) else (self.target,)
        return self.columns + more


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Steps that follow each other in the file ``path``: shape (steps, columns), NaN where a value is missing."""

    path: Path
    steps: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """The windows that begin at ``starts``, int64, shape (windows,), in ``steps``, shape (steps, columns)."""

    steps: Floats
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)


class Series:
    """The series in the tables of ``path``. Raises ``DataMissingError`` naming file, row and column of a mistake."""

    def __init__(self, choices: SeriesChoices, path: Path) -> None:
        self.path = path
        self._choices = choices
        self._files = find_tables(path)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that are measured, in the order of the inputs."""
        return columns_of(self._choices, read_table(self._files.first))

    @property
    def first_file(self) -> Path:
        """The table that the columns are those of."""
        return self._files.first

    def part(self, partition: Partition) -> tuple[Windows, Windows]:
        """Returns the windows to train on, and those of the holdout, which is the end of each table of the partition.

        ``natural``: the k-th table; ``iid``: the k-th stretch of time of all tables. Raises ``ValueError`` naming the
        member of ``partition`` that does not fit.
        """
        scheme = parse_scheme(partition.scheme)
        if partition.examples is not None:
            raise ValueError("examples: a series cannot be thinned out, expected none")
        match scheme:
            case OwnData():
                segments = self._train
            case Natural():
                segments = [self._table_number(partition.index)]
            case Iid():
                segments = self._stretch(partition_index(partition), partition.count)
            case _:
                raise ValueError(
                    f"scheme: {partition.scheme} cannot divide a series (expected --partition own, natural or iid)"
                )
        train, holdout = zip(*(_hold_out_the_end(one, partition.holdout) for one in segments), strict=True)
        windows = self._windows(train)
        if not len(windows):
            self._fail_without_windows(train, partition)
        held_out = self._windows(holdout)
        if partition.holdout and not len(held_out):
            LOG.warning(
                "%s: the holdout, %d steps, is too short for a window of %d: nothing is held out",
                *(self.path, sum(len(one.steps) for one in holdout), self._choices.length),
            )
        return windows, held_out

    @property
    def steps(self) -> int:
        """The number of steps in all tables but the test split."""
        return sum(len(segment.steps) for segment in self._train)

    @property
    def has_train(self) -> bool:
        """Whether there are tables besides the test split."""
        return bool(self._files.train)

    @cached_property
    def whole(self) -> Windows:
        """All windows but those of the test split."""
        return self._windows(self._train)

    @cached_property
    def test(self) -> Windows:
        """The windows of the test split."""
        segment = self._segment(self._test_file)
        windows = self._windows([segment])
        if not len(windows):
            self._fail_without_windows([segment], None)
        return windows

    @cached_property
    def _train(self) -> list[Segment]:
        if not self._files.train:
            raise DataMissingError(
                f"{self.path}: has no table but the test split, expected *.csv or *.parquet"
            )
        return [self._segment(file) for file in self._files.train]

    @property
    def _test_file(self) -> Path:
        if self._files.test is None:
            raise DataMissingError(f"{self.path}: has no test split, expected test.csv or test.parquet")
        return self._files.test

    def _table_number(self, index: int) -> Segment:
        if index >= len(self._train):
            raise DataMissingError(
                f"{self.path}: has {len(self._train)} tables, but this edge's is number {index + 1} (--partition "
                "natural); if each edge has tables of its own: --partition own"
            )
        return self._train[index]

    def _stretch(self, index: int, count: int) -> list[Segment]:
        """Returns the steps of one of ``count`` stretches of time, which are as long as each other."""
        total, offset = self.steps, 0
        low, high = total * index // count, total * (index + 1) // count
        stretch = []
        for segment in self._train:
            steps = segment.steps[max(0, low - offset) : max(0, high - offset)]
            offset += len(segment.steps)
            if len(steps):
                stretch.append(Segment(segment.path, steps))
        if not stretch:
            raise ValueError(f"count: {count} partitions, but the series have only {total} steps")
        return stretch

    def _segment(self, file: Path) -> Segment:
        """Reads the steps of a table, in the order of time."""
        table = read_table(file)
        lacking = [name for name in self.columns if name not in table.columns]
        if lacking:
            raise DataMismatchError(
                f"{file}: row 1: column {lacking[0]!r} is missing; the file has: {', '.join(table.columns)}"
            )
        steps = np.empty((len(table), len(self.columns)), np.float64)
        for i, name in enumerate(self.columns):
            column = table.columns[name]
            bad = column.where(lambda text: not is_missing(text) and number_of(text) is None)
            if bad.any():
                table.fail_at(
                    int(bad.argmax()), name, "is no number, expected one as in most rows: correct the cell"
                )
            steps[:, i] = column.numbers()
        if self._choices.time:
            steps = steps[_order_in_time(table, self._choices.time)]
        return Segment(file, steps)

    def _windows(self, segments: Sequence[Segment]) -> Windows:
        length, starts, offset = self._choices.length, [np.empty(0, np.int64)], 0
        for segment in segments:
            first = np.arange(0, len(segment.steps) - length + 1, self._choices.stride, dtype=np.int64)
            gaps = np.concatenate([[0], np.isnan(segment.steps).any(axis=1).cumsum()])
            starts.append(offset + first[gaps[first + length] == gaps[first]])
            offset += len(segment.steps)
        return Windows(np.concatenate([segment.steps for segment in segments]), np.concatenate(starts))

    def _fail_without_windows(self, segments: Sequence[Segment], partition: Partition | None) -> None:
        """Raises ``DataCorruptError``, or ``ValueError`` if the division is to blame, not the tables."""
        longest = max(segments, key=lambda segment: len(segment.steps))
        length, rows = self._choices.length, len(longest.steps)
        if rows < length:
            share = "" if partition is None or not partition.holdout else " without the holdout"
            problem = (
                f"{longest.path}: has {rows} rows{share}, expected at least {length}, the length of a window"
            )
            if partition is not None and isinstance(parse_scheme(partition.scheme), Iid):
                raise ValueError(f"count: {partition.count} stretches are too short: {problem}")
            raise DataMismatchError(problem)
        gaps = np.isnan(longest.steps).sum(axis=0)
        most = int(gaps.argmax())
        raise DataMismatchError(
            f"{longest.path}: no window of {length} rows is left without those that have gaps: "
            f"column {self.columns[most]!r} has {gaps[most]} in {rows} rows"
        )


def columns_of(choices: SeriesChoices, table: Table) -> tuple[str, ...]:
    """Returns the columns of ``table`` that are chosen, else those with numbers. Raises ``DataCorruptError``."""
    has = f"the file has: {', '.join(table.columns)}"
    for option, names in (
        ("columns", choices.columns),
        ("target", (choices.target,)),
        ("time", (choices.time,)),
    ):
        for name in filter(None, names):
            if name not in table.columns:
                raise DataMismatchError(f"{table.path}: row 1: column {name!r} ({option}) is missing; {has}")
    if choices.columns:
        return choices.all_columns
    numbers = {
        name for name, column in table.columns.items() if name != choices.time and not is_text([column])
    }
    if not numbers:
        raise DataMismatchError(f"{table.path}: row 1: no column has numbers; {has}")
    return tuple(sorted(numbers | ({choices.target} if choices.target else set())))


def _hold_out_the_end(segment: Segment, fraction: float) -> tuple[Segment, Segment]:
    border = len(segment.steps) - round(fraction * len(segment.steps))
    return Segment(segment.path, segment.steps[:border]), Segment(segment.path, segment.steps[border:])


def _order_in_time(table: Table, name: str) -> NDArray[np.int64]:
    """Returns the order of the rows in time, by a column with numbers or dates."""
    column = table.columns[name]
    seconds = np.array([_seconds_of(text) for text in column.texts], np.float64)[column.codes]
    bad = np.isnan(seconds)
    if bad.any():
        table.fail_at(
            int(bad.argmax()), name,
            "is no time, expected a number or a date as 2026-11-28T22:33:00 (rows in order need no option time)",
        )  # fmt: skip
    order = seconds.argsort(kind="stable").astype(np.int64)
    if (np.diff(order) != 1).any():
        LOG.info("%s: the rows are not in the order of %r: sorting them", table.path, name)
    return order


def _seconds_of(text: str) -> float:
    """Returns the time as a number, without a zone as UTC; NaN if it is none."""
    number = number_of(text)
    if number is not None:
        return number
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return float("nan")
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
