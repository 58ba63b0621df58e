"""What runs have in common, where they differ, and how far each one came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fl_aggregator.tools.report.reading import RunReport

TARGET_STEP: Final = 0.05
"""Where no target was set, the one that runs are compared by is a multiple of this."""


def assign_unique_names(runs: Sequence[RunReport]) -> None:
    """Gives each run a name of its own: the shortest end of its path that no other has."""
    for length in range(1, 9):
        names = ["/".join(run.path.resolve().parts[-length:]) for run in runs]
        if len(set(names)) == len(names) or length == 8:
            for run, name in zip(runs, names, strict=True):
                run.name = name
            return


def settings_that_differ(runs: Sequence[RunReport]) -> list[tuple[str, list[Any]]]:
    """By name, the values of all runs; what a run does not tell is null."""
    names = dict.fromkeys(name for run in runs for name in settings_of(run))
    rows = [(name, [settings_of(run).get(name) for run in runs]) for name in names]
    return [(name, values) for name, values in rows if any(value != values[0] for value in values)]


def settings_of(run: RunReport) -> dict[str, Any]:
    """All that a run was told: its settings, and the versions of what it depends on."""
    versions = run.record.get("versions")
    packages = versions if isinstance(versions, dict) else {}
    return {**run.settings, **{f"version of {name}": number for name, number in packages.items()}}


def comparison_target(runs: Sequence[RunReport]) -> float | None:
    """The accuracy by which runs are compared: the lowest target that was set, else the highest that all have reached,
    rounded down. Null where one of them has none.
    """
    targets = [
        value for run in runs if isinstance(value := run.settings.get("target_accuracy"), (int, float))
    ]
    if targets:
        return float(min(targets))
    best = [max(run.series("accuracy")[1], default=0.0) for run in runs]
    reached = int(min(best, default=0.0) / TARGET_STEP + 1e-9)
    return round(reached * TARGET_STEP, 2) if reached else None


def versions_to_reach(run: RunReport, target: float) -> int | None:
    """How many versions it took to the accuracy; null if it was not reached."""
    for line in run.rounds:
        if line.metrics.get("accuracy", -1.0) >= target and line.version is not None:
            return line.version
    return None
