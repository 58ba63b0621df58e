"""The text on standard output when a run is over: how it ended, its files, and how to resume it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fl_aggregator.messaging.rejections import RejectionCounts
from fl_aggregator.round.state import Failed, Finished, Stopped
from fl_aggregator.server.aggregator import Outcome
from fl_aggregator.storage.run_directory import HISTORY_FILE, RUN_FILE
from fl_shared.system.text import duration_text, size_text

WRITTEN_FILES: Final = (
    ("model.safetensors", "the newest version"),
    ("best.safetensors", "the version with the best accuracy"),
    (HISTORY_FILE, "one line of JSON per round"),
    (RUN_FILE, "the run's settings"),
)
"""The files of a run directory that are named at the end, and their content in words."""


def outcome_line(outcome: Outcome, refused: str) -> str:
    """Says how a run ended.

    ``refused`` names refused edges, which may be the reason why there were too few.
    """
    state = outcome.state
    versions = f"{state.version} of {state.settings.rounds} versions in {duration_text(outcome.seconds)}"
    accuracy = state.metrics.get("accuracy")
    reached = "" if accuracy is None else f", accuracy {accuracy:.4f}"
    match state.phase:
        case Finished(reason=reason):
            early = "" if reason == "rounds" else " (target accuracy reached)"
            return f"finished: {versions}{reached}{early}"
        case Failed(detail=detail):
            return f"failed: {versions}{reached}: {detail}" + (f"; {refused}" if refused else "")
        case Stopped(reason=reason):
            return f"stopped: {versions}{reached}: {reason}"
        case _:
            return versions


def written_files(directory: Path) -> Iterator[str]:
    """Yields lines that name the files in a run directory that a user may want, with their sizes."""
    yield f"written to {directory}:"
    there = [(directory / name, what) for name, what in WRITTEN_FILES if (directory / name).exists()]
    width = max((len(str(path)) for path, _ in there), default=0)
    for path, what in there:
        yield f"  {path!s:{width}}  {what}, {size_text(path.stat().st_size)}"
    yield f"look at it: fl-aggregator report {shlex.quote(str(directory))}"


def resume_command(command: str, outcome: Outcome, directory: Path, more: Sequence[str]) -> str | None:
    """Returns the command that resumes the run, with ``more`` arguments; null if the run is finished."""
    if isinstance(outcome.state.phase, Finished):
        return None
    return f"{command} --resume {shlex.join([str(directory), *more])}"


def refused_line(refused: RejectionCounts, most: int = 10) -> str:
    """Says how many messages were refused in the whole run, by edge and reason, the most first."""
    ranked = sorted(refused.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    said = (f"{who} {', '.join(f'{reason} {n}' for reason, n in why.items())}" for who, why in ranked[:most])
    return f"refused: {'; '.join(said)}" + (f"; and {len(ranked) - most} more" if len(ranked) > most else "")
