"""Compares runs: their names, the settings that differ, and the versions that each needed for a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fl_aggregator.tools.report.reading import RunReport
from fl_shared.system.text import path_text

TARGET_STEP: Final = 0.05
"""If no run has a target, the accuracy by which runs are compared is a multiple of this."""


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
    names = dict.fromkeys(name for run in runs for name in settings_of(run))
    rows = [(name, [settings_of(run).get(name) for run in runs]) for name in names]
    return [(name, values) for name, values in rows if any(value != values[0] for value in values)]


def settings_of(run: RunReport) -> dict[str, Any]:
    """The settings of a run, and the versions of the packages that it depends on."""
    versions = run.record.get("versions")
    packages = versions if isinstance(versions, dict) else {}
    return {**run.settings, **{f"version of {name}": number for name, number in packages.items()}}


def comparison_target(runs: Sequence[RunReport]) -> float | None:
    """The accuracy by which runs are compared: the lowest target that a run has.

    If no run has one, it is the best accuracy that all have reached, rounded down to a multiple of
    ``TARGET_STEP``; null if that is 0.
    """
    targets = [run.target for run in runs if run.target is not None]
    if targets:
        return float(min(targets))
    best = [max(run.series("accuracy")[1], default=0.0) for run in runs]
    reached = int(min(best, default=0.0) / TARGET_STEP + 1e-9)
    return round(reached * TARGET_STEP, 2) if reached else None


def versions_to_reach(run: RunReport, target: float) -> int | None:
    """The first version with at least the accuracy ``target``, null if no version has reached it."""
    for record in run.rounds:
        if record.metrics.get("accuracy", -1.0) >= target and record.version is not None:
            return record.version
    return None
