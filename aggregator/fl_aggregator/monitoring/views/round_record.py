"""The record of a round that has ended, and its conversions.

A record is made of the machine's `Summary`, and written to ``history.jsonl``. Trackers, the report, tables
and the dashboard's history are made of records; `history_row` has the part of one that ``fl/history`` contains.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from statistics import fmean
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from fl_aggregator.round.events import Similarity, StrategyReport
from fl_aggregator.round.state import PersonalScore, Summary
from fl_shared.protocol import messages as m
from fl_shared.protocol.envelope import Envelope
from fl_shared.system.text import natural_order
from fl_shared.tensors.encodings.float32 import FLOAT32

EVALUATING: Final = "evaluating"
"""The phase that overlaps the next round, and does not count as a round's own time."""

Name = Annotated[str, StringConstraints(max_length=64)]
"""An edge's id, a label, or the name of a metric or a phase."""
Names = Annotated[list[Name], Field(max_length=100_000)]
Counts = Annotated[dict[Name, m.Count], Field(max_length=1000)]
FiniteMetrics = Annotated[dict[Name, Annotated[float, Field(ge=-1e300, le=1e300)]], Field(max_length=256)]
"""Metrics in a range that can be drawn. The aggregator writes finite numbers only."""
EdgesValues = Annotated[dict[Name, Annotated[float, Field(ge=-1e300, le=1e300)]], Field(max_length=100_000)]
"""Values by client."""
WHEN_MEASURED: Final = ("before", "after", "train")
"""Before ``_`` and a metric's name: of the base and the trained model on the edges' holdouts, and of the training."""
Reason = Annotated[str, StringConstraints(max_length=10_000)]


class _Lenient(BaseModel):
    """Ignores unknown members, since lines of later versions may have more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ConfusionMatrix(_Lenient):
    """``counts[i][j]``: examples of class ``labels[i]`` that were predicted as ``labels[j]``."""

    labels: Annotated[list[Name], Field(min_length=1, max_length=m.MAX_CLASSES)]
    counts: Annotated[
        list[Annotated[list[m.Count], Field(max_length=m.MAX_CLASSES)]], Field(max_length=m.MAX_CLASSES)
    ]

    @model_validator(mode="after")
    def _check_square(self) -> Self:
        if [len(row) for row in self.counts] != [len(self.labels)] * len(self.labels):
            raise ValueError(f"expected {len(self.labels)} rows of {len(self.labels)} counts")
        return self


class Traffic(_Lenient):
    """Traffic of a round in bytes. ``up``: updates from edges. ``down``: messages published for edges."""

    up: m.Count = 0
    down: m.Count = 0


class PersonalScores(_Lenient):
    """By client, the primary metric on its holdout: of the last version, and of its own model made of that."""

    before: EdgesValues = {}
    after: EdgesValues = {}

    @property
    def means(self) -> tuple[float, float]:
        """The means over the edges, each of which counts the same; of one edge at least."""
        return fmean(self.before.values()), fmean(self.after.values())


class RoundRecord(_Lenient):
    """A round that has ended. ``version`` and ``digest`` are null if it was abandoned for ``reason``.

    ``missing``: reasons by client. ``delayed``: the edges that waited for messages that did not arrive. ``refused``:
    numbers of messages by client and reason. ``declared``: the metrics that the task declares. ``split``: on which the
    version was evaluated, null if it was not. ``seconds``: durations by phase. ``first_served``: of a mean of versions
    that was evaluated, the first; null if it was the version itself. ``similarity``: null if updates were not compared.
    ``strategy``: what it says of the version.
    ``edges``: by client, the primary metric of version ``edges_version`` on the edge's own holdout (see `Summary`); in
    a result only the worst. ``personal``: of the last version with ``--personalize``. ``encoding``: of the
    updates' deltas. ``virtual_seconds``, ``real_seconds``: of a run in virtual time, its time at the end of the round,
    and the real time until then; null in real time. ``masked``: only the sum of the updates was seen.
    ``privacy``: what the versions up to this one have told about an edge. ``secret``: see `shown`.
    """

    round: m.Count
    outcome: Literal["committed", "abandoned"]
    reason: Reason | None = None
    version: m.Count | None = None
    digest: Name | None = None
    cohort: Names = []
    participants: Names = []
    missing: Annotated[dict[Name, Reason], Field(max_length=100_000)] = {}
    delayed: Names = []
    refused: Annotated[dict[Name, Counts], Field(max_length=100_000)] = {}
    examples: m.Count = 0
    metrics: FiniteMetrics = {}
    declared: Annotated[list[m.MetricDeclaration], Field(max_length=m.MAX_DECLARED_METRICS)] = []
    split: m.Split | None = None
    confusion: ConfusionMatrix | None = None
    seconds: Annotated[dict[Name, m.Seconds], Field(max_length=100)] = {}
    bytes: Traffic = Traffic()
    encoding: Name = FLOAT32.name
    first_served: m.Count | None = None
    similarity: Similarity | None = None
    strategy: StrategyReport | None = None
    edges: EdgesValues = {}
    edges_version: m.Count | None = None
    personal: PersonalScores | None = None
    virtual_seconds: m.Seconds | None = None
    real_seconds: m.Seconds | None = None
    masked: bool = False
    privacy: m.PrivacySpent | None = None
    secret: bool = False

    @field_validator("similarity")
    @classmethod
    def _one_entry_for_each_client(cls, found: Similarity | None) -> Similarity | None:
        if found is not None:
            count = len(found.clients)
            columns = (found.to_others, found.lengths, found.shares, found.influences)
            pairs = [len(row) for row in found.cosines]
            if any(len(column) != count for column in columns) or pairs not in ([], [count] * count):
                raise ValueError(f"expected {count} numbers for {count} clients")
        return found

    @classmethod
    def of(
        cls,
        summary: Summary,
        up: int,
        down: int,
        refused: Mapping[str, Mapping[str, int]] | None = None,
        delayed: Collection[str] = (),
        times: tuple[float, float] | None = None,
    ) -> RoundRecord:
        """Makes the record of a summary.

        ``up``, ``down``: bytes. ``times``: ``virtual_seconds`` and ``real_seconds``. Nothing is validated: all is ours.
        """
        confusion = summary.confusion
        return cls.model_construct(
            round=summary.round,
            outcome=summary.outcome,
            reason=summary.reason,
            version=None if summary.model is None else summary.model.version,
            digest=None if summary.model is None else summary.model.digest,
            cohort=list(summary.cohort),
            participants=natural_order(summary.participants),
            missing={name: summary.missing[name] for name in natural_order(summary.missing)},
            delayed=natural_order(delayed),
            refused={client: dict(reasons) for client, reasons in (refused or {}).items()},
            examples=summary.examples,
            metrics=dict(summary.metrics),
            declared=list(summary.declared),
            split=summary.split,
            confusion=None
            if confusion is None
            else ConfusionMatrix.model_construct(
                labels=list(confusion.labels), counts=[list(row) for row in confusion.counts]
            ),
            seconds=dict(summary.seconds),
            bytes=Traffic.model_construct(up=up, down=down),
            encoding=summary.encoding,
            first_served=summary.first_served,
            similarity=summary.similarity,
            strategy=summary.strategy,
            edges={name: summary.edges[name] for name in natural_order(summary.edges)},
            edges_version=summary.edges_version,
            personal=personal_scores(summary.personal),
            virtual_seconds=None if times is None else round(times[0], 6),
            real_seconds=None if times is None else round(times[1], 3),
            masked=summary.masked,
            privacy=summary.privacy,
            secret=summary.secret,
        )

    @classmethod
    def of_result(cls, result: m.Result) -> RoundRecord:
        """Makes a record of the message on ``fl/round/<n>/result``.

        The message contains only the sum of the seconds, which is then under ``total``, and of the declared metrics
        only the primary one.
        """
        return cls.model_construct(
            round=result.round,
            outcome=result.outcome,
            reason=result.reason,
            version=result.version,
            digest=result.digest,
            cohort=[*result.participants, *result.missing],
            participants=list(result.participants),
            missing=dict(result.missing),
            delayed=[],
            refused={},
            examples=result.examples,
            metrics=dict(result.metrics),
            declared=[] if result.primary in (None, m.LOSS) else [result.primary],
            split=result.split,
            confusion=None,
            seconds={"total": result.seconds},
            edges=dict(result.worst_edges),
            masked=result.masked,
            privacy=result.privacy,
            secret=result.secret,
            bytes=Traffic.model_construct(up=result.bytes_up, down=result.bytes_down),
        )

    def result_message(self, envelope: Envelope) -> m.Result:
        """The message for ``fl/round/<n>/result``."""
        return m.Result(
            **envelope,
            round=self.round,
            outcome=self.outcome,
            reason=self.reason,
            version=self.version,
            digest=self.digest,
            participants=tuple(self.participants),
            missing={name: reason[:1000] for name, reason in self.missing.items()},
            examples=self.examples,
            metrics=dict(self.metrics),
            primary=self.primary,
            split=self.split,
            outliers={} if self.similarity is None else first_outliers(self.similarity),
            worst_edges=self.worst_edges,
            masked=self.masked,
            privacy=self.privacy,
            secret=self.secret,
            bytes_up=self.bytes.up,
            bytes_down=self.bytes.down,
            seconds=self.duration,
        )

    @property
    def shown(self) -> RoundRecord:
        """The record as others may see it: of a round with a secret cohort, nothing that tells who was in it."""
        if not self.secret:
            return self
        kept = (
            "round",
            "outcome",
            "version",
            "digest",
            "metrics",
            "declared",
            "split",
            "confusion",
            "encoding",
            "first_served",
            "privacy",
            "secret",
        )
        return RoundRecord.model_construct(**{name: getattr(self, name) for name in kept})

    def history_fields(self) -> dict[str, Any]:
        """The object for a line of ``history.jsonl``."""
        return self.model_dump()

    @property
    def primary(self) -> m.MetricDeclaration:
        """The metric by which versions are compared."""
        return m.primary_of(self.declared)

    @property
    def worst_edges(self) -> dict[str, float]:
        """The edges with the worst values of the primary metric, the worst first."""
        names = sorted(
            natural_order(self.edges), key=self.edges.__getitem__, reverse=not self.primary.higher_is_better
        )
        return {name: self.edges[name] for name in names[: m.MAX_WORST_EDGES]}

    @property
    def over_edges(self) -> dict[str, Any]:
        """The primary metric over the edges, for ``--json``: ``mean``, ``p10``, ``worst``, null if none measured it."""
        values = {name.removeprefix("edges_"): self.metrics.get(name) for name in m.EDGES_METRICS}
        return values | {"worst_edges": self.worst_edges}

    def unit_of(self, name: str) -> str:
        """Returns the unit of a member of ``metrics``; empty if it has none, as all that the task does not declare."""
        units = {metric.name: metric.unit for metric in self.declared} | dict.fromkeys(
            m.EDGES_METRICS, self.primary.unit
        )
        when, _, metric = name.partition("_")
        return units.get(name, units.get(metric, "") if when in WHEN_MEASURED else "")

    @property
    def clock_text(self) -> str:
        """What is said after a duration, if it is not of real time."""
        return "" if self.virtual_seconds is None else " of virtual time"

    @property
    def duration(self) -> float:
        """The duration of the round in seconds, without the evaluation."""
        return sum(seconds for phase, seconds in self.seconds.items() if phase != EVALUATING)

    @property
    def surplus(self) -> list[str]:
        """The selected edges whose updates were not needed, since the round had reached its target."""
        return [name for name, reason in self.missing.items() if reason.startswith("surplus")]

    @property
    def missing_without_surplus(self) -> dict[str, str]:
        """The selected edges whose updates were missing, with the reasons, without the `surplus` ones."""
        return {name: reason for name, reason in self.missing.items() if not reason.startswith("surplus")}


def personal_scores(scores: Mapping[str, PersonalScore]) -> PersonalScores | None:
    """Returns the scores of the edges' own models as a record has them; null if there are none."""
    names = natural_order(scores)
    if not names:
        return None
    return PersonalScores.model_construct(
        before={name: scores[name].before for name in names},
        after={name: scores[name].after for name in names},
    )


def first_outliers(found: Similarity) -> dict[str, str]:
    """Returns the outliers that a message has room for, by name, with the reasons."""
    return {name: found.outliers[name] for name in natural_order(found.outliers)[: m.MAX_OUTLIERS]}


def read_records(lines: Iterable[Mapping[str, Any]]) -> Iterator[RoundRecord]:
    """The records in lines of ``history.jsonl``. Lines that are not valid records are skipped."""
    for line in lines:
        try:
            yield RoundRecord.model_validate(line)
        except ValidationError:
            continue
