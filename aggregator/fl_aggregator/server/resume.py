"""Resumes a run: restores the state from its directory, and determines which effects to repeat.

Nothing is decided here: the recorded events are replayed through ``round.machine.step``. Their effects may or
may not have been performed before the aggregator stopped. Those that still matter are performed once more;
for all of them, twice is as good as once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fl_aggregator.messaging.publisher import RESULTS_RETAINED
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round import effects as do
from fl_aggregator.round import machine
from fl_aggregator.round.closing import announcement_of, average_of
from fl_aggregator.round.effects import Effect
from fl_aggregator.round.events import Event, UpdateMetadata
from fl_aggregator.round.machine import step
from fl_aggregator.round.state import (
    Aggregating,
    Collecting,
    Failed,
    Finished,
    Run,
    Stopped,
    Summary,
    collected_round,
    new_run,
)
from fl_aggregator.storage.journal import read_events
from fl_aggregator.storage.run_directory import RunDirectory, RunRecord, package_versions
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m

LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecoveredRun:
    """What the journal of a run contains.

    ``run_time``: when its last event happened, in seconds. ``has_events``: whether there is any. ``models``
    (the newest two) and ``results`` were published last; ``best`` was the last version stored as best;
    ``updates``: the latest one of each edge.
    """

    record: RunRecord
    state: Run
    run_time: float
    has_events: bool
    models: tuple[do.PublishModel, ...]
    results: tuple[do.PublishResult, ...]
    best: do.StoreBest | None
    updates: Mapping[str, UpdateMetadata]

    @property
    def open_round(self) -> Collecting | None:
        """The round whose updates are in the spool, or null."""
        return collected_round(self.state.phase)

    @property
    def average(self) -> do.Average | None:
        """The average that was being made when the aggregator stopped, or null."""
        phase = self.state.phase.resume_phase if isinstance(self.state.phase, Stopped) else self.state.phase
        return average_of(phase.collected) if isinstance(phase, Aggregating) else None

    def effects_to_repeat(self, state: Run) -> tuple[do.Effect, ...]:
        """Returns the effects to perform once more, given the state after the resume."""
        effects: list[do.Effect] = [*self.models, *self.results]
        if isinstance(state.phase, Collecting):
            effects.append(announcement_of(state.phase))
        if self.average is not None and isinstance(state.phase, Aggregating):
            effects.append(self.average)
        if self.best is not None:
            effects.append(self.best)
        return tuple(effects)


def recover(directory: RunDirectory, record: RunRecord) -> RecoveredRun:
    """Reads the journal, and repairs the history to agree with it.

    Raises ``UserError`` if the run is finished and has recorded its end, or if another version of the machine
    recorded it.
    """
    if record.machine != machine.MACHINE_VERSION:
        raise UserError(
            f"--resume {directory.path}: run {record.run} was recorded by version {record.machine} of the round "
            f"machine, this is version {machine.MACHINE_VERSION}: resume it with the release of fl-mqtt that began it "
            f"({record.versions.get('fl-mqtt')})"
        )
    installed, recorded = package_versions()["fl-mqtt"], record.versions.get("fl-mqtt")
    if installed != recorded:
        LOG.warning(
            "the run was started with fl-mqtt %s and is resumed with %s: its models may differ from those of either",
            recorded,
            installed,
        )
    first = record.first_weights
    state = new_run(
        record.settings,
        None if first is None else m.ModelReference(version=0, digest=first.digest),
        None if first is None else first.manifest,
    )
    now, has_events = 0.0, False
    models: dict[int, do.PublishModel] = {}
    results: dict[int, do.PublishResult] = {}
    lines: dict[int, Summary] = {}
    best: do.StoreBest | None = None
    updates: dict[str, UpdateMetadata] = {}
    for event, after, effects in replay(state, directory.path):
        state, now, has_events = after, event.now, True
        for effect in effects:
            match effect:
                case do.PublishModel(model=model):
                    models[model.version] = effect
                case do.PublishResult(summary=summary):
                    results[summary.round] = effect
                case do.WriteHistory(summary=summary):
                    lines[summary.round] = summary
                case do.Fold(update=update):
                    updates[update.client] = update
                case do.StoreBest():
                    best = effect
                case _:
                    pass
    try:
        directory.begin_writing()
        checkpoints = directory.checkpoints
        if (
            best is not None
            and checkpoints.best_path.exists()
            and not checkpoints.version_path(best.model.version).exists()
        ):
            best = None  # it was stored, or its checkpoint would still be there
        _repair_history(directory, state, lines)
    except OSError as error:
        raise UserError(f"--resume {directory.path}: {error.strerror}: {error.filename}") from None
    if isinstance(state.phase, Finished) and record.ended is not None:
        raise UserError(
            f"--resume {directory.path}: run {record.run} is finished ({state.version} of "
            f"{record.settings.rounds} versions): nothing left to do"
        )
    newest = tuple(models[version] for version in sorted(models)[-2:])
    last_results = tuple(results.values())[-RESULTS_RETAINED:]
    return RecoveredRun(record, state, now, has_events, newest, last_results, best, updates)


def _repair_history(directory: RunDirectory, state: Run, lines: dict[int, Summary]) -> None:
    """Gives every round that is final its line in the history, and removes the lines of all others."""
    complete = lines.keys() - {summary.round for summary in state.pending_summaries}
    present = directory.filter_history(complete)
    for number in sorted(complete - present):
        directory.append_history(RoundRecord.of(lines[number], 0, 0).history_fields())


def resume_point_text(state: Run) -> str:
    """Says in words, for the log, where the run continues."""
    progress = f"{state.version} of {state.settings.rounds} versions"
    phase = state.phase.resume_phase if isinstance(state.phase, Stopped | Failed) else state.phase
    match phase:
        case Collecting():
            return f"{progress}; round {phase.round} is open and has {len(phase.updates)} of {phase.target} updates"
        case Aggregating():
            return f"{progress}; round {phase.round} is closed and will be averaged"
        case _:
            return progress


def replay(state: Run, directory: Path) -> Iterator[tuple[Event, Run, tuple[Effect, ...]]]:
    """Yields each recorded event, the state after it, and its effects, none of which is performed."""
    for event in read_events(directory):
        state, effects = step(state, event)
        yield event, state, effects
