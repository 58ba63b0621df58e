"""Resumes a run: restores the state from its directory, and determines which effects to repeat.

Nothing is decided here: the recorded events are replayed through ``round.machine.step``. Their effects may or
may not have been performed before the aggregator stopped. Those that still matter are performed once more;
for all of them, twice is as good as once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from fl_aggregator.aggregation.serving import read_mean
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round import effects as do
from fl_aggregator.round import machine, personalization
from fl_aggregator.round.agreeing import reveal_of
from fl_aggregator.round.closing import announcement_of, average_of, closing_of
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.phases import (
    Aggregating,
    Agreeing,
    Buffering,
    Collecting,
    Failed,
    Finished,
    Stopped,
    Unmasking,
    buffering_of,
    collected_round,
)
from fl_aggregator.round.snapshot import Snapshot
from fl_aggregator.round.state import Run, Summary
from fl_aggregator.storage import journal
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.replay import first_snapshot, replay
from fl_aggregator.storage.run_directory import HISTORY_FILE, RunDirectory, RunRecord, package_versions
from fl_shared.errors import RunFailed, UserError
from fl_shared.system.invocation import aggregator_command
from fl_shared.tensors.manifest import Vector

LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecoveredRun:
    """What the journal of a run contains.

    ``snapshot``: the run at its end. ``entries``: how many lines it has. ``lines``: the summaries for the history, by
    round. ``checkpoints``: the models that were published last, and of the weights that the user gave, by version.
    ``strategy_state``: at the newest version. ``served``: the means that were served, by their last version.
    """

    record: RunRecord
    snapshot: Snapshot
    entries: int
    lines: Mapping[int, Summary]
    checkpoints: Mapping[int, Model] = field(default_factory=dict)
    strategy_state: Mapping[str, Vector] = field(default_factory=dict)
    served: Mapping[int, Model] = field(default_factory=dict)

    @property
    def state(self) -> Run:
        """The state after the last event."""
        return self.snapshot.state

    @property
    def open_round(self) -> Collecting | None:
        """The round whose updates are in the spool, or null."""
        return collected_round(self.state.phase)

    @property
    def stored(self) -> dict[int, tuple[UpdateMetadata, ...]]:
        """The accepted updates that are in the spool, by the round in whose sum they are."""
        if self.open_round is not None:
            return {self.open_round.round: tuple(self.open_round.updates.values())}
        phase = buffering_of(self.state.phase)
        if phase is None:
            return {}
        size = self.record.settings.per_round
        stored = {
            phase.round + i // size: phase.updates[i : i + size] for i in range(0, len(phase.updates), size)
        }
        if phase.making is not None:
            stored[phase.making.round] = tuple(phase.making.collected.updates.values())
        return stored

    @property
    def open_rounds(self) -> set[int]:
        """The rounds whose incomplete uploads go on."""
        if self.open_round is not None:
            return {self.open_round.round}
        phase = buffering_of(self.state.phase)
        return (
            set() if phase is None else {one.round for one in (*phase.tickets.values(), *phase.away.values())}
        )

    @property
    def average(self) -> do.Average | None:
        """The average that was being made when the aggregator stopped, or null."""
        phase = self.state.phase.resume_phase if isinstance(self.state.phase, Stopped) else self.state.phase
        making = phase.making if isinstance(phase, Buffering) else phase
        if not isinstance(making, Aggregating):
            return None
        return average_of(self.state, making.collected, making.unmasking)

    def effects_to_repeat(self, state: Run) -> tuple[do.Effect, ...]:
        """Returns the effects to perform once more, given the state after the resume."""
        models, best = self.snapshot.models, self.snapshot.best
        effects: list[do.Effect] = [
            models[version] for version in sorted(models) if version in self.checkpoints
        ]
        effects += personalization.repeated(state)
        effects += self.snapshot.results.values()
        match state.phase:
            case Collecting():
                effects.append(announcement_of(state.phase))
            case Agreeing(collected=collected):
                effects += [announcement_of(collected), closing_of(state.phase)]
            case Unmasking(collected=collected):
                effects += [announcement_of(collected), reveal_of(state.phase)]
            case _:
                pass
        if isinstance(state.phase, Buffering):
            tickets = {**state.phase.tickets, **state.phase.away}
            effects += [do.IssueTicket(client, ticket) for client, ticket in tickets.items()]
        if self.average is not None and isinstance(state.phase, Aggregating | Buffering):
            effects.append(self.average)
        if best is not None:
            effects.append(best)
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
        serve = aggregator_command("serve", directory.path, "--retrain-below", "METRIC=VALUE")
        raise UserError(
            f"--resume {directory.path}: run {record.run} is finished ({recovered.state.version} of "
            f"{record.settings.rounds} versions): nothing left to do"
            + ("" if record.settings.survey else f"; to publish its model again: {serve}")
        )
    try:
        recovered = _with_checkpoints(directory, recovered)
    except RunFailed as damage:
        if record.settings.dp is not None:
            raise RunFailed(
                f"{damage}; a private run does not go back to an earlier version, since the edges have been charged "
                "for this one: restore the file from a copy, or begin a new run with the newest model"
            ) from None
        recovered = _before_damage(directory, recovered, damage)
    try:
        make_files_agree(directory, recovered)
    except OSError as error:
        raise UserError(f"--resume {directory.path}: {error.strerror}: {error.filename}") from None
    _forget_stored_best(directory, recovered.snapshot)
    return recovered


def _forget_stored_best(directory: RunDirectory, snapshot: Snapshot) -> None:
    """Leaves out the best version if it was stored: otherwise its checkpoint would still be there."""
    best, checkpoints = snapshot.best, directory.checkpoints
    if (
        best is not None
        and not checkpoints.version_path(best.model.version).exists()
        and checkpoints.best_path.exists()
    ):
        snapshot.best = None


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
    snapshot, entries = first_snapshot(record), 0
    lines: dict[int, Summary] = {}
    for snapshot, effects in replay(record, directory):
        entries += 1
        lines |= {e.summary.round: e.summary for e in effects if isinstance(e, do.WriteHistory)}
        if until is not None and until in snapshot.models:
            break
    return RecoveredRun(record, snapshot, entries, lines)


def _refuse_shortened_journal(directory: RunDirectory, recovered: RecoveredRun) -> None:
    """Raises ``UserError`` if there is a checkpoint of a version that the journal cannot have come to.

    The checkpoint of the next version may exist: it is written before the commit is recorded.
    """
    versions = directory.checkpoints.versions()
    committed = -1 if recovered.state.model is None else recovered.state.version
    if versions and versions[-1] > committed + 1 and recovered.record.settings.region is None:
        last = f"ends after version {committed}" if committed >= 0 else "has no version"
        raise UserError(
            f"--resume {directory.path}: {journal.FILE_NAME} {last}, but there is a checkpoint of version "
            f"{versions[-1]}: a part of the journal is missing. Restore the file from a copy, or begin a new run with "
            f"the newest model: --init {directory.checkpoints.model_path}"
        )


def _with_checkpoints(directory: RunDirectory, recovered: RecoveredRun) -> RecoveredRun:
    """Reads the models of the newest version, with the strategy's state, and of the one before it.

    Raises ``RunFailed`` if a file of the newest is damaged.

    The version before may still be in evaluation, but the run does not need it.
    """
    if recovered.state.model is None:
        return recovered
    checkpoints, version = directory.checkpoints, recovered.state.version
    found = {version: checkpoints.read(version, recovered.state.model.digest)}
    for earlier, effect in recovered.snapshot.models.items():
        if earlier != version:
            try:
                found[earlier] = checkpoints.read(earlier, effect.model.digest)
            except RunFailed as error:
                LOG.warning("%s; the run does not need this version", error)
    published = recovered.snapshot.models.get(version)
    state = checkpoints.read_state(version, None if published is None else published.strategy_state)
    served = _served(directory, recovered, found)
    return replace(recovered, checkpoints=found, strategy_state=state, served=served)


def _served(directory: RunDirectory, recovered: RecoveredRun, found: Mapping[int, Model]) -> dict[int, Model]:
    """Reads the means that were served after the versions ``found``. Raises ``RunFailed`` if the newest is lost."""
    served = {}
    for number, model in found.items():
        effect = recovered.snapshot.models.get(number)
        if effect is not None and effect.served is not None:
            try:
                record, digest = recovered.record, effect.served.digest
                served[number] = read_mean(
                    directory.checkpoints, record.settings, number, model, digest, record.model_metadata
                )
            except RunFailed as error:
                if number == recovered.state.version:
                    raise
                LOG.warning("%s; the run does not need this mean", error)
    return served


def _before_damage(directory: RunDirectory, recovered: RecoveredRun, damage: RunFailed) -> RecoveredRun:
    """Returns the run at the commit of the version before the newest one, whose checkpoint is damaged.

    Raises ``RunFailed`` if that has no usable checkpoint, either.
    """
    version = recovered.state.version - 1
    earlier = replay_journal(directory.path, recovered.record, version)
    if earlier.state.model is None or earlier.state.version != version:
        raise RunFailed(
            f"{damage}; the run cannot continue without it: restore the file from a copy"
        ) from None
    try:
        earlier = _with_checkpoints(directory, earlier)
    except RunFailed as error:
        raise RunFailed(
            f"{damage}; {error}; the run cannot continue without one of them: restore a file from a copy"
        ) from None
    LOG.warning("%s: continuing from version %d, and repeating the round after it", damage, version)
    return earlier


def make_files_agree(directory: RunDirectory, recovered: RecoveredRun) -> None:
    """Cuts the journal to the events that were replayed, and repairs the history. Raises ``OSError``."""
    directory.begin_writing()
    directory.journal.cut(recovered.entries)
    if recovered.checkpoints:
        directory.checkpoints.drop_after(recovered.state.version)
    _repair_history(directory, recovered.state, recovered.lines)


def _repair_history(directory: RunDirectory, state: Run, lines: Mapping[int, Summary]) -> None:
    """Gives every round that is final its line in the history, and removes the lines of all others."""
    ended, pending = ended_rounds(state)
    present = directory.filter_history(ended, pending)
    missing = sorted(lines.keys() - pending - present)
    for number in missing:
        directory.append_history(RoundRecord.of(lines[number], 0, 0).history_fields())
    if lost := ended - len(pending) - len(present) - len(missing):
        LOG.warning("%s lacks %d rounds that the journal no longer has", HISTORY_FILE, lost)


def ended_rounds(state: Run) -> tuple[int, set[int]]:
    """Returns the newest round that has ended, and those up to it whose line in the history is not final."""
    ended = state.closed_rounds[-1].round if state.closed_rounds else 0
    return ended, {summary.round for summary in state.pending_summaries}


def resume_point_text(state: Run) -> str:
    """Says in words, for the log, where the run continues."""
    progress = f"{state.version} of {state.settings.rounds} versions"
    phase = state.phase.resume_phase if isinstance(state.phase, Stopped | Failed) else state.phase
    match phase:
        case Collecting():
            return f"{progress}; round {phase.round} is open and has {len(phase.updates)} of {phase.target} updates"
        case Agreeing():
            count = f"{len(phase.signatures)} of {phase.masking.threshold} members have signed"
            return f"{progress}; round {phase.round} is closed; {count} what is summed"
        case Unmasking():
            count = f"{len(phase.opened)} of {phase.needed} members have opened"
            return f"{progress}; round {phase.round} is closed; {count} its sum"
        case Aggregating():
            return f"{progress}; round {phase.round} is closed and will be averaged"
        case Buffering():
            at_work, size = len(phase.tickets), state.settings.per_round
            return f"{progress}; the buffer has {len(phase.updates)} of {size} updates, and {at_work} edges are at work"
        case _:
            return progress
