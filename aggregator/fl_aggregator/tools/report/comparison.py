"""Compares runs: their names, the settings that differ, and the versions that each needed for a target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from fl_aggregator.configuration.values import Target
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.settings import settings_of
from fl_shared.protocol import messages as m
from fl_shared.system.text import path_text

TARGET_DIGITS: Final = 2
"""Digits to which the target of a comparison is rounded, if no run has one."""


def assign_unique_names(runs: Sequence[RunReport]) -> None:
    """Gives each run a unique name: the shortest end of its path that no other run has."""
    for length in range(1, 9):
        names = [path_text("/".join(run.path.resolve().parts[-length:])) for run in runs]
        if len(set(names)) == len(names) or length == 8:
            for run, name in zip(runs, names, strict=True):
                run.name = name
            return


def settings_that_differ(runs: Sequence[RunReport]) -> list[tuple[str, list[Any]]]:
    """The settings in which runs differ, each with the values of all runs; null if a run does not have it."""
    settings = [settings_of(run) for run in runs]
    names = dict.fromkeys(name for one in settings for name in one)
    rows = [(name, [one.get(name) for one in settings]) for name in names]
    return [(name, values) for name, values in rows if any(value != values[0] for value in values)]


def common_primary(runs: Sequence[RunReport]) -> m.MetricDeclaration | None:
    """The primary metric of all runs that have ended a round, null if theirs differ."""
    metrics = list(dict.fromkeys(run.primary for run in runs if run.rounds))
    return metrics[0] if len(metrics) == 1 else None


def comparability_note(runs: Sequence[RunReport]) -> str | None:
    """Why the values of the runs must not be compared as they are; null if they may be."""
    notes = []
    if common_primary(runs) is None and any(run.rounds for run in runs):
        notes.append("their primary metrics differ")
    if len({tuple(run.splits) for run in runs if run.splits}) > 1:
        notes.append("they were evaluated on different splits")
    return f"The values of these runs cannot be compared: {' and '.join(notes)}." if notes else None


def comparison_target(runs: Sequence[RunReport]) -> Target | None:
    """The value of the primary metric by which runs are compared: the easiest target that a run has for it.

    If no run has one, it is the best value that all have reached, rounded to what is easier to reach, to
    ``TARGET_DIGITS`` digits. Null if the runs' primary metrics or splits differ, or nothing was measured.
    """
    metric = common_primary(runs)
    if metric is None or comparability_note(runs) is not None:
        return None
    easiest = min if metric.higher_is_better else max
    targets = [
        run.target.value for run in runs if run.target is not None and run.target.metric == metric.name
    ]
    if targets:
        return Target(metric.name, easiest(targets))
    best = [value for run in runs if (value := run.best(metric)) is not None]
    if len(best) < len(runs) or not easiest(best):
        return None
    return Target(metric.name, _rounded(easiest(best), up=not metric.higher_is_better))


def _rounded(value: float, *, up: bool) -> float:
    """``value``, rounded to ``TARGET_DIGITS`` digits upwards or downwards."""
    step = 10.0 ** (math.floor(math.log10(abs(value))) + 1 - TARGET_DIGITS)
    count = value / step
    return float(f"{(math.ceil(count - 1e-9) if up else math.floor(count + 1e-9)) * step:.{TARGET_DIGITS}g}")


def versions_to_reach(run: RunReport, target: Target) -> int | None:
    """The first version that is as good as the target, null if no version is."""
    metric = next((one for one in run.measured if one.name == target.metric), None)
    for record in run.rounds:
        value = record.metrics.get(target.metric)
        if metric is None or value is None or metric.is_better(target.value, value):
            continue
        if record.version is not None:
            return record.version
    return None
