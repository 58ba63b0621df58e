"""Replays the journal of a run: the state after each of its lines, and the effects that the line has had."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fl_aggregator.round.effects import Effect
from fl_aggregator.round.machine import step
from fl_aggregator.round.snapshot import Snapshot
from fl_aggregator.round.state import new_run
from fl_aggregator.storage import journal
from fl_aggregator.storage.run_directory import RunRecord
from fl_shared.protocol import messages as m


def first_snapshot(record: RunRecord) -> Snapshot:
    """Returns a run before its first event."""
    first = record.first_weights
    if first is None:
        return Snapshot(new_run(record.settings))
    return Snapshot(
        new_run(record.settings, m.ModelReference(version=0, digest=first.digest), first.manifest)
    )


def replay(record: RunRecord, directory: Path) -> Iterator[tuple[Snapshot, tuple[Effect, ...]]]:
    """Yields the run after each line of the journal, and the line's effects, none of which is performed.

    It is the same object again and again, which changes. Raises as `journal.read_entries` does.
    """
    snapshot = first_snapshot(record)
    for entry in journal.read_entries(directory, record.settings):
        effects: tuple[Effect, ...] = ()
        if isinstance(entry, Snapshot):
            snapshot = entry
        else:
            state, effects = step(snapshot.state, entry)
            snapshot.add(entry.now, state, effects)
        yield snapshot, effects
