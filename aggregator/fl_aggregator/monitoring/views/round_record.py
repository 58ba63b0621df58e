"""A round that ended, in one shape, and its conversions.

It is made of the machine's `Summary`, and stands so in ``history.jsonl``; trackers, the report, tables and the
dashboard's history are made of it. `HistoryRow` is the ten numbers of it that ``fl/history`` has for every round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fl_aggregator.round.state import Summary
from fl_shared.protocol import messages as m
from fl_shared.protocol.envelope import Envelope

METRIC_DIGITS: Final = 6
"""Significant digits of a metric in ``fl/history``."""
EVALUATING: Final = "evaluating"
"""The phase that goes on beside the next round, and is no part of a round's own time."""

Count = Annotated[int, Field(ge=0)]
Counts = dict[str, Count]
FiniteMetrics = dict[str, Annotated[float, Field(ge=-1e300, le=1e300)]]
"""What can be drawn; the aggregator writes finite numbers only."""


class _Lenient(BaseModel):
    """Lines of later versions may have more members."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ConfusionMatrix(_Lenient):
    """``counts[i][j]``: examples of class ``labels[i]`` that were predicted as ``labels[j]``."""

    labels: Annotated[list[str], Field(min_length=1)]
    counts: list[list[Count]]

    @model_validator(mode="after")
    def _check_square(self) -> Self:
        if [len(row) for row in self.counts] != [len(self.labels)] * len(self.labels):
            raise ValueError(f"expected {len(self.labels)} rows of {len(self.labels)} counts")
        return self


class Traffic(_Lenient):
    """Bytes of updates that came up, and of what was published for edges."""

    up: Count = 0
    down: Count = 0


class RoundRecord(_Lenient):
    """``version`` and ``digest`` are null where the round was abandoned, for ``reason``.

    ``missing``: why, by client. ``refused``: how many messages, by client and reason. ``seconds``: by phase.
    """

    round: Count
    outcome: Literal["committed", "abandoned"]
    reason: str | None = None
    version: Count | None = None
    digest: str | None = None
    cohort: list[str] = []
    participants: list[str] = []
    missing: dict[str, str] = {}
    refused: dict[str, Counts] = {}
    examples: Count = 0
    metrics: FiniteMetrics = {}
    confusion: ConfusionMatrix | None = None
    seconds: dict[str, Annotated[float, Field(ge=0, le=1e9)]] = {}
    bytes: Traffic = Traffic()

    @classmethod
    def of(
        cls, summary: Summary, up: int, down: int, refused: Mapping[str, Mapping[str, int]] | None = None
    ) -> RoundRecord:
        """``up``, ``down``: bytes. Nothing is checked: it is the machine's own."""
        confusion = summary.confusion
        return cls.model_construct(
            round=summary.round,
            outcome=summary.outcome,
            reason=summary.reason,
            version=None if summary.model is None else summary.model.version,
            digest=None if summary.model is None else summary.model.digest,
            cohort=list(summary.cohort),
            participants=list(summary.participants),
            missing=dict(summary.missing),
            refused={client: dict(reasons) for client, reasons in (refused or {}).items()},
            examples=summary.examples,
            metrics=dict(summary.metrics),
            confusion=None
            if confusion is None
            else ConfusionMatrix.model_construct(
                labels=list(confusion.labels), counts=[list(row) for row in confusion.counts]
            ),
            seconds=dict(summary.seconds),
            bytes=Traffic.model_construct(up=up, down=down),
        )

    @classmethod
    def of_result(cls, result: m.Result) -> RoundRecord:
        """From ``fl/round/<n>/result``, which has only the sum of the seconds (under ``total``)."""
        return cls.model_construct(
            round=result.round,
            outcome=result.outcome,
            reason=result.reason,
            version=result.version,
            digest=result.digest,
            cohort=[*result.participants, *result.missing],
            participants=list(result.participants),
            missing=dict(result.missing),
            refused={},
            examples=result.examples,
            metrics=dict(result.metrics),
            confusion=None,
            seconds={"total": result.seconds},
            bytes=Traffic.model_construct(up=result.bytes_up, down=result.bytes_down),
        )

    def result_message(self, envelope: Envelope) -> m.Result:
        """For ``fl/round/<n>/result``."""
        return m.Result(
            **envelope,
            round=self.round,
            outcome=self.outcome,
            reason=self.reason,
            version=self.version,
            digest=self.digest,
            participants=tuple(self.participants),
            missing={name: why[:1000] for name, why in self.missing.items()},
            examples=self.examples,
            metrics=dict(self.metrics),
            bytes_up=self.bytes.up,
            bytes_down=self.bytes.down,
            seconds=self.duration,
        )

    def history_fields(self) -> dict[str, Any]:
        """For ``history.jsonl``."""
        return self.model_dump()

    @property
    def duration(self) -> float:
        """Seconds, without the evaluation."""
        return sum(seconds for phase, seconds in self.seconds.items() if phase != EVALUATING)

    @property
    def surplus(self) -> list[str]:
        """Selected, and not needed: the round had all the updates it wanted."""
        return [name for name, why in self.missing.items() if why.startswith("surplus")]

    @property
    def missing_without_surplus(self) -> dict[str, str]:
        """Selected, and truly missing; why."""
        return {name: why for name, why in self.missing.items() if not why.startswith("surplus")}

    def summary_fields(self) -> dict[str, Any]:
        """The numbers of its `HistoryRow`, why it was abandoned, and who was missing; for ``--json``."""
        return asdict(HistoryRow.of(self)) | {"reason": self.reason, "missing": dict(self.missing)}


def read_records(lines: Iterable[Mapping[str, Any]]) -> Iterator[RoundRecord]:
    """From lines of ``history.jsonl``; a line that is none is left out."""
    for line in lines:
        try:
            yield RoundRecord.model_validate(line)
        except ValidationError:
            continue


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One round as the arrays of `messages.HistoryColumns` have it. ``seconds`` without the evaluation."""

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

    @classmethod
    def of(cls, record: RoundRecord) -> Self:
        """A round that is evaluated later gives another row then."""
        metrics = record.metrics
        return cls(
            round=record.round,
            version=record.version,
            accuracy=_rounded(metrics.get("accuracy")),
            loss=_rounded(metrics.get("loss")),
            train_loss=_rounded(metrics.get("train_loss")),
            seconds=round(record.duration, 3),
            participants=len(record.participants),
            cohort=len(record.cohort),
            bytes_up=record.bytes.up,
            bytes_down=record.bytes.down,
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Those that were measured."""
        found = {"accuracy": self.accuracy, "loss": self.loss, "train_loss": self.train_loss}
        return {name: value for name, value in found.items() if value is not None}


_COLUMNS: Final = tuple(HistoryRow.__dataclass_fields__)


def columns_of(rows: Sequence[HistoryRow]) -> m.HistoryColumns:
    """As ``fl/history`` has them."""
    return m.HistoryColumns(**{name: tuple(getattr(row, name) for row in rows) for name in _COLUMNS})


def rows_of(columns: m.HistoryColumns) -> tuple[HistoryRow, ...]:
    """The rows of ``columns``; inverse of `columns_of`."""
    return tuple(
        HistoryRow(*values) for values in zip(*(getattr(columns, name) for name in _COLUMNS), strict=True)
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{METRIC_DIGITS}g}")
