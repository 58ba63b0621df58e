"""The text on standard output when a run is over: how it ended, its files, and how to resume it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fl_aggregator.messaging.rejections import RejectionCounts
from fl_aggregator.monitoring.views.notices import absence_text
from fl_aggregator.monitoring.views.privacy import spent_line
from fl_aggregator.monitoring.views.round_record import personal_scores
from fl_aggregator.round.phases import Failed, Finished, Stopped
from fl_aggregator.round.state import PersonalMissing, Run
from fl_aggregator.server.outcome import Outcome
from fl_aggregator.storage.run_directory import FLEET_LOG, HISTORY_FILE, RUN_FILE
from fl_shared.system.invocation import aggregator_command, edge_command
from fl_shared.system.text import duration_text, natural_key, quantity_text, size_text, version_text

WRITTEN_FILES: Final = (
    ("model.safetensors", "the newest version"),
    ("served.safetensors", "the mean of the last versions, which is served"),
    ("best.safetensors", "the version with the best {best}"),
    (HISTORY_FILE, "one line of JSON per round"),
    (RUN_FILE, "the run's settings"),
    (FLEET_LOG, "what the edges of a simulation have logged"),
)
"""The files of a run directory that are named at the end, and their content in words."""


def outcome_line(outcome: Outcome, refused: str) -> str:
    """Says how a run ended.

    ``refused`` names refused edges, which may be the reason why there were too few.
    """
    state = outcome.state
    versions = f"{state.version} of {state.settings.rounds} versions in {duration_text(outcome.seconds)}"
    if outcome.real_seconds is not None:
        versions += f" of virtual time ({duration_text(outcome.real_seconds)} of real time)"
    primary, value = state.primary, state.metrics.get(state.primary.name)
    measured = int(state.metrics.get("version", 0))
    first = state.settings.first_served(measured)
    of = "" if first is None else f", {version_text(first, measured)}"
    score = (
        "" if value is None else f", {primary.name} {quantity_text(value, primary.unit)} ({state.split}{of})"
    )
    match state.phase:
        case Finished(reason=reason):
            reason_text = {
                "rounds": "",
                "target": f" (target {state.settings.target} reached)",
                "privacy-budget": " (the privacy budget is spent)",
            }[reason]
            absence = absence_text(state)
            return f"finished: {versions}{score}{reason_text}" + (f"; {absence}" if absence else "")
        case Failed(detail=detail):
            return f"failed: {versions}{score}: {detail}" + (f"; {refused}" if refused else "")
        case Stopped(reason=reason):
            return f"stopped: {versions}{score}: {reason}"
        case _:
            return versions


def personal_line(state: Run) -> str | None:
    """Says what the edges' own models are worth, and of how many edges it is not known; null if none was asked."""
    missing = _missing_text(state) if isinstance(state.phase, Finished) else ""
    scores = personal_scores(state.personal or {})
    if scores is None:
        return f"personal models: no edge has reported what its own is worth{missing}" if missing else None
    primary = state.primary
    before, after = (quantity_text(mean, primary.unit) for mean in scores.means)
    gains = {name: after - scores.before[name] for name, after in scores.after.items()}
    worst = (min if primary.higher_is_better else max)(gains, key=gains.__getitem__)
    values = (quantity_text(found[worst], primary.unit) for found in (scores.before, scores.after))
    return (
        f"personal models: {primary.name} {before} → {after} (mean of {len(gains)} edges on their holdouts; "
        f"least gain: edge {worst}, {' → '.join(values)}){missing}"
    )


def _missing_text(state: Run) -> str:
    """Says why there is no score of an edge's own model, to be appended; empty if there is one of each edge."""
    reasons: dict[PersonalMissing, str] = {
        "deadline": f"did not report within --deadline ({state.settings.deadline:g} s)",
        "absent": "not present",
        "unmeasured": "reported no value",  # without a holdout, or since the training failed
    }
    missing = state.personal_missing
    found = ", ".join(f"{missing[why]} {text}" for why, text in reasons.items() if missing.get(why))
    return f"; of {state.settings.clients} edges (--clients) {found}" if found else ""


def privacy_line(state: Run) -> str | None:
    """Says how much of its privacy budget the run has spent; null without differential privacy."""
    return None if state.privacy is None else spent_line(state.privacy)


def survey_line(state: Run, directory: Path) -> str | None:
    """Says how to see what a survey has found; null of a training."""
    if state.settings.survey is None or not isinstance(state.phase, Finished):
        return None
    return f"see what it found: {aggregator_command('survey', directory)}"


def check_line(state: Run) -> str | None:
    """Says how to try a task of the user's own after rounds in a row have failed; null for other runs."""
    failed = isinstance(state.phase, Failed) and state.phase.reason == "rounds-abandoned"
    if not failed or ":" not in state.settings.task:
        return None
    return f"try the task alone: {edge_command('check-task', state.settings.task)}"


def written_files(directory: Path, state: Run) -> Iterator[str]:
    """Yields lines that name the files in a run directory that a user may want, with their sizes."""
    best = f"{state.primary.name} ({quantity_text(state.best, state.primary.unit)})"
    yield f"written to {directory}:"
    existing = [
        (directory / name, label.format(best=best))
        for name, label in WRITTEN_FILES
        if (directory / name).exists()
    ]
    width = max((len(str(path)) for path, _ in existing), default=0)
    for path, what in existing:
        yield f"  {path!s:{width}}  {what}, {size_text(path.stat().st_size)}"
    extra = "" if importlib.util.find_spec("matplotlib") else "report"
    yield f"look at it: {aggregator_command('report', directory, extra=extra)}"


def resume_command(command: str, outcome: Outcome, directory: Path, arguments: Sequence[str]) -> str | None:
    """Returns the command that resumes the run, with ``arguments`` arguments; null if that is of no use."""
    if isinstance(outcome.state.phase, Finished) or outcome.state.failed_by_user:
        return None
    return aggregator_command(command, "--resume", directory, *arguments)


def refused_line(refused: RejectionCounts, limit: int = 10) -> str:
    """Says how many messages were refused in the whole run, by edge and reason, the most first."""
    ranked = sorted(refused.items(), key=lambda item: (-sum(item[1].values()), natural_key(item[0])))
    entries = (
        f"{client} {', '.join(f'{reason} {n}' for reason, n in reasons.items())}"
        for client, reasons in ranked[:limit]
    )
    return f"refused: {'; '.join(entries)}" + (
        f"; and {len(ranked) - limit} more" if len(ranked) > limit else ""
    )
