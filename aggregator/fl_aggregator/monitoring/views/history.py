"""The rounds that have ended as curves, small enough to lie at the broker: what ``fl/history`` says. Pure.

However long a run is, no more than ``messages.MAX_HISTORY`` rows are remembered, one out of so many, and the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fl_aggregator.round.state import Summary
from fl_shared.protocol import messages as m

MAX_ROWS: Final = m.MAX_HISTORY - 1
"""Beside the last one."""
DIGITS: Final = 6
RECENT: Final = 100
"""The last rounds, of which all is remembered; a person reads no more."""


@dataclass(frozen=True, slots=True)
class Row:
    """One round, as the arrays of `messages.HistoryColumns` have it."""

    round: int
    version: int | None
    accuracy: float | None
    loss: float | None
    train_loss: float | None
    seconds: float
    participants: int
    cohort: int
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What else is worth knowing of a round: why it was abandoned, if it was; who was missing, and why."""

    reason: str | None
    missing: Mapping[str, str]


def ended_of(summary: Summary) -> Ended:
    return Ended(summary.reason, summary.missing)


def row_of(summary: Summary, bytes_up: int, bytes_down: int) -> Row:
    """Of a round that has ended; it may be evaluated later, and then gives another row."""
    metrics = summary.metrics
    return Row(
        round=summary.round,
        version=None if summary.model is None else summary.model.version,
        accuracy=_short(metrics.get("accuracy")),
        loss=_short(metrics.get("loss")),
        train_loss=_short(metrics.get("train_loss")),
        seconds=round(duration(summary.seconds), 3),
        participants=len(summary.participants),
        cohort=len(summary.cohort),
        bytes_up=bytes_up,
        bytes_down=bytes_down,
    )


def rows_of(lines: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Row, Ended]]:
    """The same from lines of ``history.jsonl``; one that somebody has spoilt is left out."""
    for line in lines:
        try:
            metrics, size = line["metrics"], line["bytes"]
            row = Row(
                round=line["round"],
                version=line["version"],
                accuracy=_short(metrics.get("accuracy")),
                loss=_short(metrics.get("loss")),
                train_loss=_short(metrics.get("train_loss")),
                seconds=round(duration(line["seconds"]), 3),
                participants=len(line["participants"]),
                cohort=len(line["cohort"]),
                bytes_up=size["up"],
                bytes_down=size["down"],
            )
            yield row, Ended(line["reason"], dict(line["missing"]))
        except (KeyError, TypeError, AttributeError, ValueError):
            continue


def duration(seconds: Mapping[str, float]) -> float:
    """Of a round, from its seconds by phase: its evaluation goes on beside the next one and is not its own."""
    return sum(each for phase, each in seconds.items() if phase != "evaluating")


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")


class Curves:
    """Rows in the order of their rounds. ``count``: how many rounds there were."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}
        self._recent: dict[int, tuple[Row, Ended]] = {}
        self.count = 0
        self._every = 1
        self._last: Row | None = None

    def add(self, row: Row, ended: Ended) -> None:
        """A round that has ended, or one of the last few once more, when more is known of it."""
        self._recent[row.round] = row, ended
        if len(self._recent) > RECENT:
            del self._recent[min(self._recent)]
        if row.round in self._rows:
            self._rows[row.round] = row
        elif self._last is None or row.round > self._last.round:
            if self.count % self._every == 0:
                self._rows[row.round] = row
                self._thin()
            self.count += 1
        if self._last is None or row.round >= self._last.round:
            self._last = row

    def _thin(self) -> None:
        if len(self._rows) > MAX_ROWS:
            self._every *= 2
            self._rows = dict(list(self._rows.items())[::2])

    def recent(self) -> dict[int, tuple[Row, Ended]]:
        """The last rounds by number, at most ``RECENT``."""
        return dict(self._recent)

    def rows(self) -> tuple[Row, ...]:
        """At most ``messages.MAX_HISTORY`` rows, the first and the last among them."""
        rows = tuple(self._rows.values())
        if self._last is not None and (not rows or rows[-1].round != self._last.round):
            rows = (*rows, self._last)
        return rows


def columns_of(rows: Sequence[Row]) -> m.HistoryColumns:
    """As ``fl/history`` has them."""
    return m.HistoryColumns(
        **{name: tuple(getattr(row, name) for row in rows) for name in Row.__dataclass_fields__}
    )


def rows_in(columns: m.HistoryColumns) -> tuple[Row, ...]:
    """And back."""
    names = tuple(Row.__dataclass_fields__)
    return tuple(Row(*values) for values in zip(*(getattr(columns, name) for name in names), strict=True))
