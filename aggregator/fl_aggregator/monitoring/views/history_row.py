"""The part of a round's record that ``fl/history`` contains: a row, and all rows as the columns of the message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_shared.protocol import messages as m

METRIC_DIGITS: Final = 6
"""Significant digits of a metric in ``fl/history``."""
MAX_METRIC_CELLS: Final = 12_000
"""Numbers of metrics in the columns; with more, rows are left out, so that they stay small enough for a message."""


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One round of `messages.HistoryColumns`, which says what is null. ``seconds`` does not include the evaluation."""

    round: int
    version: int | None
    metrics: Mapping[str, float]
    split: m.Split | None
    seconds: float
    participants: int
    cohort: int
    bytes_up: int
    bytes_down: int
    epsilon: float | None = None
    clip: float | None = None
    noise: float | None = None

    @classmethod
    def of(cls, record: RoundRecord) -> Self:
        """Makes the row of a record. Metrics are rounded to ``METRIC_DIGITS`` digits, without counts of examples."""
        spent = None if record.version is None else record.privacy
        return cls(
            round=record.round,
            version=record.version,
            metrics={
                name: float(f"{value:.{METRIC_DIGITS}g}")
                for name, value in record.metrics.items()
                if not name.endswith("examples")
            },
            split=record.split,
            seconds=round(record.duration, 3),
            participants=len(record.participants),
            cohort=len(record.cohort),
            bytes_up=record.bytes.up,
            bytes_down=record.bytes.down,
            **({} if spent is None else {"epsilon": spent.epsilon, "clip": spent.clip, "noise": spent.noise}),
        )


_COLUMNS: Final = tuple(name for name in HistoryRow.__dataclass_fields__ if name != "metrics")


def columns_of(rows: Sequence[HistoryRow]) -> m.HistoryColumns:
    """The rows as columns, for ``fl/history``, evenly thinned if they are too many; inverse of `rows_of`."""
    names = sorted({name for row in rows for name in row.metrics})[: m.MAX_METRICS]
    most = MAX_METRIC_CELLS // max(1, len(names))
    if len(rows) > most:
        rows = [rows[index * (len(rows) - 1) // (most - 1)] for index in range(most)]
    return m.HistoryColumns(
        **{name: _column([getattr(row, name) for row in rows], name) for name in _COLUMNS},
        metrics={name: tuple(row.metrics.get(name) for row in rows) for name in names},
    )


def _column(values: list[Any], name: str) -> tuple[Any, ...]:
    """Returns a column; an empty one for what a run without differential privacy does not have."""
    is_empty = name in m.PRIVACY_COLUMNS and all(value is None for value in values)
    return () if is_empty else tuple(values)


def rows_of(columns: m.HistoryColumns) -> tuple[HistoryRow, ...]:
    """The rows of ``columns``; inverse of `columns_of`."""
    return tuple(
        HistoryRow(
            **{name: column[index] for name in _COLUMNS if (column := getattr(columns, name))},
            metrics={
                name: value
                for name, values in columns.metrics.items()
                if (value := values[index]) is not None
            },
        )
        for index in range(len(columns.round))
    )


def summary_fields(record: RoundRecord) -> dict[str, Any]:
    """The object for ``--json``: the `HistoryRow`, `over_edges`, and the members below."""
    more = {
        "primary": record.primary.model_dump(),
        "reason": record.reason,
        "missing": dict(record.missing),
        "privacy": None if record.privacy is None else record.privacy.model_dump(),
    }
    return asdict(HistoryRow.of(record)) | more | record.over_edges
