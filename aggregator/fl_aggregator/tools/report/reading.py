"""Reads a run directory: of a run that has finished or not, was resumed or not, with broken lines or without.

It locks and writes nothing, since the run may be in progress.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fl_aggregator.configuration.masking import masked_sums
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.configuration.values import Target, parse_target
from fl_aggregator.monitoring.views.round_record import (
    ConfusionMatrix,
    Counts,
    FiniteMetrics,
    Name,
    RoundRecord,
)
from fl_aggregator.round.events import Registered, UpdateStored
from fl_aggregator.storage import journal
from fl_aggregator.storage.run_directory import HISTORY_FILE, LABEL_COUNTS_FILE, MAX_RUN_FILE, RUN_FILE
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m
from fl_shared.system.files import read_lines, read_regular
from fl_shared.system.text import path_text, shortened

MAX_FAULTS: Final = 10
"""Number of broken lines that are named; further ones are counted."""
MAX_LINES: Final = 10_000_000
"""Number of lines that are read of a file."""

LineT = TypeVar("LineT")


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LabelCounts(_Lenient):
    """The number of examples of each label in an edge's partition."""

    client: Name
    labels: Counts


class LatestResult(_Lenient):
    """An edge's newest accepted update. ``after``: metrics of the trained model on the edge's holdout."""

    client: Name
    round: m.Count
    examples: m.Count = 0
    size: m.Count = 0
    seconds: m.Seconds | None = None
    after: FiniteMetrics = {}


class _StoredUpdateLine(_Lenient):
    update: LatestResult


class _Registered(_Lenient):
    client: Name
    environment: m.Environment | None = None


class _Client(_Lenient):
    environment: m.Count | None = None


class _State(_Lenient):
    roster: dict[Name, _Client]
    environments: tuple[m.Environment, ...] = ()


class _Snapshot(_Lenient):
    updates: dict[Name, LatestResult]
    state: _State


class _SnapshotLine(_Lenient):
    snapshot: _Snapshot


@dataclass(slots=True)
class RunReport:
    """The content of a run directory. ``record``: its ``run.json``. ``faults``: what could not be read."""

    path: Path
    name: str
    record: dict[str, Any] = field(default_factory=dict)
    rounds: list[RoundRecord] = field(default_factory=list)
    label_counts: dict[str, LabelCounts] = field(default_factory=dict)
    latest_results: dict[str, LatestResult] = field(default_factory=dict)
    environments: dict[str, m.Environment] = field(default_factory=dict)
    """Where each edge runs, as its newest registration says."""
    faults: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings in ``run.json``; empty if they could not be read."""
        settings = self.record.get("settings")
        return settings if isinstance(settings, dict) else {}

    @property
    def attack(self) -> str | None:
        """Who attacked the run and how; null in a run without simulated attackers."""
        try:
            return path_text(self.record["fleet"]["attack"]["summary"])
        except (KeyError, TypeError, AttributeError):
            return None

    @property
    def attackers(self) -> tuple[str, ...]:
        """The ids of the edges that attacked the run."""
        try:
            return tuple([path_text(str(edge)) for edge in self.record["fleet"]["attack"]["edges"]])
        except (KeyError, TypeError):
            return ()

    @property
    def parsed_settings(self) -> Settings | None:
        """The settings; null if they could not be read, or are not valid."""
        try:
            return Settings.model_validate(self.settings)
        except ValidationError:
            return None

    @property
    def masked(self) -> m.MaskedSums | None:
        """What could be seen of the updates, if edges masked them; null if each one could, or if that is not known."""
        settings = self.parsed_settings
        return (
            None
            if settings is None
            else masked_sums(settings, certified=self.record.get("certified") is True)
        )

    @property
    def target(self) -> Target | None:
        """The value of a metric at which the run ends, null if it has none."""
        try:
            return parse_target(self.settings["target"])
        except (KeyError, ValueError, AttributeError):
            return None

    @property
    def declared(self) -> list[m.MetricDeclaration]:
        """The metrics that the task declares, as the newest round says."""
        return self.rounds[-1].declared if self.rounds else []

    @property
    def primary(self) -> m.MetricDeclaration:
        """The metric by which versions are compared."""
        return m.primary_of(self.declared)

    @property
    def measured(self) -> list[m.MetricDeclaration]:
        """The metrics of evaluations: the declared ones, and the loss."""
        return [*self.declared, m.LOSS]

    @property
    def splits(self) -> list[m.Split]:
        """The splits on which versions were evaluated: none, one or both."""
        return sorted({record.split for record in self.rounds if record.split is not None})

    @property
    def clock_text(self) -> str:
        """What is said after a duration of the run, if it is not of real time."""
        return self.rounds[-1].clock_text if self.rounds else ""

    @property
    def splits_text(self) -> str:
        """Those splits, for people."""
        return " and ".join(self.splits) or "none"

    def best(self, metric: m.MetricDeclaration) -> float | None:
        """The best value of a metric on the test split, or else on the holdout; null if it was never measured."""
        measured = [one for one in self.rounds if metric.name in one.metrics]
        split = "test" if any(one.split == "test" for one in measured) else None
        values = [one.metrics[metric.name] for one in measured if split is None or one.split == split]
        return (max if metric.higher_is_better else min)(values, default=None)

    @property
    def ended(self) -> bool:
        """Whether the run has ended and has recorded that."""
        return bool(self.record.get("ended"))

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """The rounds in which a metric was measured, and its values."""
        points = [
            (record.round, record.metrics[metric]) for record in self.rounds if metric in record.metrics
        ]
        return [number for number, _ in points], [value for _, value in points]

    def last(self, metric: str) -> float | None:
        """The newest value of a metric, null if it was never measured."""
        values = self.series(metric)[1]
        return values[-1] if values else None

    @property
    def confusion(self) -> tuple[RoundRecord, ConfusionMatrix] | None:
        """The newest confusion matrix with its round, null if there is none."""
        for record in reversed(self.rounds):
            if record.confusion is not None:
                return record, record.confusion
        return None


def read_run_report(directory: Path) -> RunReport:
    """Reads ``directory``, and skips what cannot be read. Raises ``UserError`` if it contains no run."""
    run = RunReport(directory, path_text(directory.resolve().name))
    if not directory.is_dir():
        raise UserError(f"{directory}: does not exist, expected a run directory")
    run.record = _read_record(run)
    records = {record.round: record for record in _read_lines(run, HISTORY_FILE, TypeAdapter(RoundRecord))}
    run.rounds = [records[number] for number in sorted(records)]
    if not run.record and not run.rounds:
        reason = f": {run.faults[0]}" if run.faults else ""
        raise UserError(
            f"{directory}: contains no run (neither {RUN_FILE} nor a line of {HISTORY_FILE} can be read){reason}"
        )
    run.label_counts = {
        counts.client: counts for counts in _read_lines(run, LABEL_COUNTS_FILE, TypeAdapter(LabelCounts))
    }
    for line in _read_lines(run, journal.FILE_NAME, TypeAdapter(_SnapshotLine), journal.SNAPSHOT_PREFIX):
        run.latest_results.update(line.snapshot.updates)
        _take_environments(run, line.snapshot.state)
    known: dict[m.Environment, m.Environment] = {}
    for registered in _read_lines(
        run, journal.FILE_NAME, TypeAdapter(_Registered), journal.line_prefix(Registered)
    ):
        if (found := registered.environment) is not None:
            run.environments[registered.client] = known.setdefault(found, found)
    for accepted in _read_lines(
        run, journal.FILE_NAME, TypeAdapter(_StoredUpdateLine), journal.line_prefix(UpdateStored)
    ):
        run.latest_results[accepted.update.client] = accepted.update
    if len(run.faults) > MAX_FAULTS:
        run.faults[MAX_FAULTS:] = [f"{directory}: {len(run.faults) - MAX_FAULTS} more lines are broken"]
    return run


def _take_environments(run: RunReport, state: _State) -> None:
    for name, client in state.roster.items():
        if client.environment is not None and client.environment < len(state.environments):
            run.environments[name] = state.environments[client.environment]


def _read_record(run: RunReport) -> dict[str, Any]:
    file = run.path / RUN_FILE
    try:
        fields = json.loads(read_regular(file, MAX_RUN_FILE))
        if not isinstance(fields, dict):
            raise ValueError(f"contains a {type(fields).__name__}, expected an object")
    except OSError as error:
        run.faults.append(f"{file}: {error.strerror}")
    except (ValueError, RecursionError) as error:
        run.faults.append(f"{file}: {error}")
    else:
        return fields
    return {}


def _read_lines(
    run: RunReport, name: str, adapter: TypeAdapter[LineT], line_prefix: bytes = b""
) -> Iterator[LineT]:
    """The valid lines of a file that begin with ``line_prefix``. Broken lines become faults.

    The file may be missing; only a missing history is a fault.
    """
    file = run.path / name
    try:
        for number, line in enumerate(read_lines(file), 1):
            if not line.startswith(line_prefix) or not line.strip():
                continue
            try:
                yield adapter.validate_json(line)
            except ValidationError as error:
                first = error.errors(include_url=False, include_context=False)[0]
                location = shortened(".".join(map(str, first["loc"])), 100) or "the line"
                run.faults.append(f"{file}: line {number}: {location}: {first['msg']}")
            if number == MAX_LINES:
                run.faults.append(f"{file}: has more than {MAX_LINES} lines, of which the first are read")
                return
    except FileNotFoundError:
        if name == HISTORY_FILE:
            run.faults.append(f"{file}: does not exist")
    except OSError as error:
        run.faults.append(f"{file}: {error.strerror}")
