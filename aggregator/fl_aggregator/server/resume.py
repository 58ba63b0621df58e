"""Resumes a run: restores the state from its directory, and determines which effects to repeat.

Nothing is decided here: the recorded events are replayed through ``round.machine.step``. Their effects may or
may not have been performed before the aggregator stopped. Those that still matter are performed once more;
for all of them, twice is as good as once.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
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
from fl_aggregator.storage import journal
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.run_directory import RunDirectory, RunRecord, package_versions
from fl_shared.errors import RunFailed, UserError
from fl_shared.protocol import messages as m

LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecoveredRun:
    """What the journal of a run contains.

    ``run_time``: when its last event happened, in seconds. ``events``: how many there are. ``models`` (the newest two)
    and ``results`` were published last; ``lines``: the summaries for the history, by round; ``best`` was the last
    version stored as best; ``updates``: the latest one of each edge; ``checkpoints``: the models of ``models``, and of
    the weights that the user gave, by version.
    """

    record: RunRecord
    state: Run
    run_time: float
    events: int
    models: tuple[do.PublishModel, ...]
    results: tuple[do.PublishResult, ...]
    lines: Mapping[int, Summary]
    best: do.StoreBest | None
    updates: Mapping[str, UpdateMetadata]
    checkpoints: Mapping[int, Model] = field(default_factory=dict)

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
    """Reads the run in a directory, and repairs its files to agree with its journal.

    If the checkpoint of the newest version is damaged, the run continues from the version before it. Nothing is
    changed before all has been read. Raises ``UserError`` if the run is finished and has recorded its end, if another
    version of the machine recorded it, or if its files contradict each other, and ``RunFailed`` if it has no usable
    checkpoint.
    """
    _check_versions(directory, record)
    recovered = replay_journal(directory.path, record)
    _refuse_shortened_journal(directory, recovered)
    if isinstance(recovered.state.phase, Finished) and record.ended is not None:
        raise UserError(
            f"--resume {directory.path}: run {record.run} is finished ({recovered.state.version} of "
            f"{record.settings.rounds} versions): nothing left to do"
        )
    try:
        recovered = _with_checkpoints(directory, recovered)
    except RunFailed as damage:
        recovered = _before_damage(directory, recovered, damage)
    try:
        make_files_agree(directory, recovered)
    except OSError as error:
        raise UserError(f"--resume {directory.path}: {error.strerror}: {error.filename}") from None
    return _without_stored_best(directory, recovered)


def _without_stored_best(directory: RunDirectory, recovered: RecoveredRun) -> RecoveredRun:
    """Leaves out the best version if it was stored: otherwise its checkpoint would still be there."""
    best, checkpoints = recovered.best, directory.checkpoints
    if best is None or checkpoints.version_path(best.model.version).exists():
        return recovered
    return replace(recovered, best=None) if checkpoints.best_path.exists() else recovered


def _check_versions(directory: RunDirectory, record: RunRecord) -> None:
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


def replay_journal(directory: Path, record: RunRecord, until: int | None = None) -> RecoveredRun:
    """Replays the journal in ``directory``, to its end or to the commit of version ``until``.

    Raises ``UserError`` if it is damaged, and ``OSError``.
    """
    first = record.first_weights
    state = new_run(
        record.settings,
        None if first is None else m.ModelReference(version=0, digest=first.digest),
        None if first is None else first.manifest,
    )
    now, count = 0.0, 0
    models: dict[int, do.PublishModel] = {}
    results: dict[int, do.PublishResult] = {}
    lines: dict[int, Summary] = {}
    best: do.StoreBest | None = None
    updates: dict[str, UpdateMetadata] = {}
    for event, after, effects in replay(state, directory):
        state, now, count = after, event.now, count + 1
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
        if until is not None and until in models:
            break
    newest = tuple(models[version] for version in sorted(models)[-2:])
    last_results = tuple(results.values())[-RESULTS_RETAINED:]
    return RecoveredRun(record, state, now, count, newest, last_results, lines, best, updates)


def _refuse_shortened_journal(directory: RunDirectory, recovered: RecoveredRun) -> None:
    """Raises ``UserError`` if there is a checkpoint of a version that the journal cannot have come to.

    The checkpoint of the next version may exist: it is written before the commit is recorded.
    """
    versions = directory.checkpoints.versions()
    committed = -1 if recovered.state.model is None else recovered.state.version
    if versions and versions[-1] > committed + 1:
        last = f"ends after version {committed}" if committed >= 0 else "has no version"
        raise UserError(
            f"--resume {directory.path}: {journal.FILE_NAME} {last}, but there is a checkpoint of version "
            f"{versions[-1]}: a part of the journal is missing. Restore the file from a copy, or begin a new run with "
            f"the newest model: --init {directory.checkpoints.model_path}"
        )


def _with_checkpoints(directory: RunDirectory, recovered: RecoveredRun) -> RecoveredRun:
    """Reads the models of the newest version and of the one before it. Raises ``RunFailed`` if the newest is damaged.

    The version before may still be in evaluation, but the run does not need it.
    """
    if recovered.state.model is None:
        return recovered
    checkpoints, version = directory.checkpoints, recovered.state.version
    found = {version: checkpoints.read(version, recovered.state.model.digest)}
    for effect in recovered.models:
        if (earlier := effect.model.version) != version:
            try:
                found[earlier] = checkpoints.read(earlier, effect.model.digest)
            except RunFailed as error:
                LOG.warning("%s; the run does not need this version", error)
    models = tuple(effect for effect in recovered.models if effect.model.version in found)
    return replace(recovered, models=models, checkpoints=found)


def _before_damage(directory: RunDirectory, recovered: RecoveredRun, damage: RunFailed) -> RecoveredRun:
    """Returns the run at the commit of the version before the newest one, whose checkpoint is damaged.

    Raises ``RunFailed`` if that has no usable checkpoint, either.
    """
    version = recovered.state.version - 1
    if version < 0 or version not in {effect.model.version for effect in recovered.models}:
        raise RunFailed(
            f"{damage}; the run cannot continue without it: restore the file from a copy"
        ) from None
    try:
        earlier = _with_checkpoints(directory, replay_journal(directory.path, recovered.record, version))
    except RunFailed as error:
        raise RunFailed(
            f"{damage}; {error}; the run cannot continue without one of them: restore a file from a copy"
        ) from None
    LOG.warning("%s: continuing from version %d, and repeating the round after it", damage, version)
    return earlier


def make_files_agree(directory: RunDirectory, recovered: RecoveredRun) -> None:
    """Cuts the journal to the events that were replayed, and repairs the history. Raises ``OSError``."""
    directory.begin_writing()
    directory.journal.cut(recovered.events)
    if recovered.checkpoints:
        directory.checkpoints.drop_after(recovered.state.version)
    _repair_history(directory, recovered.state, recovered.lines)


def _repair_history(directory: RunDirectory, state: Run, lines: Mapping[int, Summary]) -> None:
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
    for event in journal.read_events(directory):
        state, effects = step(state, event)
        yield event, state, effects
