"""Reads a sweep: its runs, and the mean and the deviation of each setting over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.storage.run_directory import RUN_FILE
from fl_aggregator.storage.sweep_record import SweptRun, read_sweep_record
from fl_aggregator.tools.report.reading import RunReport, read_run_report
from fl_shared.protocol import messages as m
from fl_shared.system.text import duration_text, path_text, quantity_text

Values = list[float]


@dataclass(frozen=True, slots=True)
class SweepRun:
    """A run of a sweep; ``report`` is null before it has begun."""

    swept: SweptRun
    report: RunReport | None

    @property
    def finished(self) -> bool:
        """Whether the run has made all its versions, or reached its target."""
        return self.report is not None and self.report.ended

    @property
    def state_text(self) -> str:
        """How far the run is, for people."""
        if self.report is None:
            return "not begun"
        versions = max((one.version for one in self.report.rounds if one.version is not None), default=0)
        text = f"{versions} of {self.report.settings.get('rounds', '?')} versions"
        return text if self.finished else f"not finished: {text}"


@dataclass(frozen=True, slots=True)
class Setting:
    """The runs of one setting, which differ in their seeds. Only those that are finished count."""

    name: str
    runs: list[SweepRun]

    @property
    def finished(self) -> list[RunReport]:
        """The reports of the finished runs."""
        return [run.report for run in self.runs if run.finished and run.report is not None]

    def values(self, value: Callable[[RunReport], float | None]) -> Values:
        """A number of each finished run that has it."""
        return [found for run in self.finished if (found := value(run)) is not None]

    def curve(self, metric: str) -> tuple[list[int], Values, Values]:
        """The rounds, and the mean and the deviation of a metric over the finished runs that measured it in each."""
        by_round: dict[int, Values] = {}
        for run in self.finished:
            for number, value in zip(*run.series(metric), strict=True):
                by_round.setdefault(number, []).append(value)
        rounds = sorted(by_round)
        spread = [mean_and_deviation(by_round[number]) for number in rounds]
        return rounds, [mean for mean, _ in spread], [deviation or 0.0 for _, deviation in spread]


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep as far as it has come."""

    path: Path
    name: str
    settings: list[Setting]

    @property
    def runs(self) -> list[SweepRun]:
        """All runs, by setting and seed."""
        return [run for setting in self.settings for run in setting.runs]

    @property
    def reports(self) -> list[RunReport]:
        """Those of the runs that have begun."""
        return [run.report for run in self.runs if run.report is not None]

    @property
    def primary(self) -> m.MetricDeclaration:
        """The metric by which versions are compared, as the first run says that has measured it."""
        return next((run.primary for run in self.reports if run.rounds), m.LOSS)


def read_sweep(directory: Path) -> Sweep:
    """Reads a sweep, and each run as `read_run_report` does. Raises ``UserError``."""
    record = read_sweep_record(directory)
    settings = [
        Setting(text or "all", [SweepRun(one, _read(directory / one.name)) for one in runs])
        for text, runs in record.settings.items()
    ]
    return Sweep(directory, path_text(directory.resolve().name), settings)


def _read(directory: Path) -> RunReport | None:
    if not (directory / RUN_FILE).exists():
        return None
    run = read_run_report(directory)
    run.name = path_text(directory.name)
    return run


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the standard deviation of the sample (n − 1), which is null for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def spread_text(values: Sequence[float], unit: str) -> str:
    """Mean ± deviation with the unit; a dash without values."""
    if not values:
        return "–"
    mean, deviation = mean_and_deviation(values)
    text = quantity_text(mean, unit)
    return text if deviation is None else f"{text} ± {quantity_text(deviation, unit)}"


def seconds_of(run: RunReport) -> float:
    """The duration of all rounds of a run."""
    return sum(map(_duration, run.rounds))


def _duration(record: RoundRecord) -> float:
    return record.duration


def results(sweep: Sweep) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of a table with a row for each setting: mean ± deviation of what its runs came to."""
    primary = sweep.primary
    columns: dict[str, Callable[[RunReport], float | None]] = {
        primary.name: lambda run: run.last(primary.name),
        "best": lambda run: run.best(primary),
        **({} if primary == m.LOSS else {"loss": lambda run: run.last("loss")}),
        "mean of the edges": lambda run: run.last("edges_mean"),
        "worst edge": lambda run: run.last("edges_worst"),
    }
    used = {
        name: value
        for name, value in columns.items()
        if name == primary.name or any(setting.values(value) for setting in sweep.settings)
    }
    rows = []
    for setting in sweep.settings:
        spreads = [
            spread_text(setting.values(value), "" if name == "loss" else primary.unit)
            for name, value in used.items()
        ]
        seconds = setting.values(seconds_of)
        time = duration_text(statistics.fmean(seconds)) if seconds else "–"
        rows.append([setting.name, f"{len(setting.finished)} of {len(setting.runs)}", *spreads, time])
    return ["setting", "finished", *used, "time"], rows
