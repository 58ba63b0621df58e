"""The directories that playbooks' runs would have left behind."""

from __future__ import annotations

import json
from pathlib import Path

from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round import effects as do
from fl_aggregator.round.machine import step
from fl_aggregator.server import compaction
from fl_aggregator.storage.replay import first_snapshot
from fl_aggregator.storage.run_directory import HISTORY_FILE, RunDirectory, new_record
from tests.support.round_playbook import Playbook, round_done, training
from tests.support.versions import model_of


def directory_of(
    playbook: Playbook, path: Path, *, lines: bool = True, min_bytes: int = compaction.MIN_BYTES
) -> RunDirectory:
    """As the aggregator would have left it, without a spool. Its models have the digests of the playbook's.

    ``min_bytes``: see `JournalCompactor`.
    """
    directory = RunDirectory(path)
    record = new_record(playbook.state.settings)
    directory.write_run(record)
    state = first_snapshot(record).state
    compactor = compaction.JournalCompactor(directory, first_snapshot(record), min_bytes)
    for event, effects in playbook.told:
        for effect in effects:
            match effect:
                case do.Record(event=event):
                    directory.journal.append(event)
                case do.PublishModel(model=model):
                    directory.checkpoints.write(model.version, model_of(model.version))
                case do.WriteHistory(summary=summary) if lines:
                    directory.append_history(RoundRecord.of(summary, 7, 8).history_fields())
                case _:
                    pass
        state, _ = step(state, event)
        compactor.add(event, state, effects)
    return directory


def played(path: Path) -> RunDirectory:
    """The directory of a run with versions 0 to 3, whose round 4 is open."""
    playbook = training(clients=2, per_round=2, rounds=9, holdout=0)
    for _ in range(3):
        round_done(playbook)
    playbook.play("send 0")
    return directory_of(playbook, path)


def rounds_in(path: Path) -> list[int]:
    return [json.loads(line)["round"] for line in (path / HISTORY_FILE).read_text().splitlines()]


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
