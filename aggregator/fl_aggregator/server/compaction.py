"""Compacts the journal, so that neither its size nor the time of a resume grows with the rounds of a run.

At a commit the run's snapshot is taken. At the next commit it replaces the events before it in the journal. So the
run can still continue from the version before the newest one, if the newest checkpoint is damaged.
"""

from __future__ import annotations

import logging
from typing import Final

from fl_aggregator.round import effects as do
from fl_aggregator.round.events import Event
from fl_aggregator.round.snapshot import Snapshot
from fl_aggregator.round.state import Run
from fl_aggregator.storage.disk_space import DiskFull
from fl_aggregator.storage.journal import snapshot_line
from fl_aggregator.storage.run_directory import RunDirectory
from fl_shared.system.files import MAX_LINE

LOG: Final = logging.getLogger(__name__)

MIN_BYTES: Final = 2**20
"""A journal of at most this size is not compacted."""
SNAPSHOTS: Final = 4
"""Nor is one of at most this many snapshots' size, so that what is written to compact it is little beside it."""


class JournalCompactor:
    """Keeps the snapshot of a run that is in progress, and compacts its journal."""

    def __init__(
        self,
        directory: RunDirectory,
        snapshot: Snapshot,
        min_bytes: int = MIN_BYTES,
        snapshots: int = SNAPSHOTS,
    ) -> None:
        self._directory = directory
        self._snapshot = snapshot.copy()
        self._min_bytes = self._limit = min_bytes
        self._snapshots = snapshots
        self._prepared: tuple[int, str] | None = None
        """The size of the journal at the last commit, and the snapshot of that moment."""

    def add(self, event: Event, state: Run, effects: tuple[do.Effect, ...]) -> None:
        """Adds a step whose effects have been performed. Raises ``OSError``."""
        if not any(isinstance(effect, do.Record) for effect in effects):
            return
        self._snapshot.add(event.now, state, effects)
        if any(isinstance(effect, do.PublishModel) for effect in effects):
            self._on_commit()

    def _on_commit(self) -> None:
        size = self._directory.journal.size
        if self._prepared is not None:
            end, snapshot = self._prepared
            self._prepared = None
            try:
                self._directory.compact_journal(end, snapshot)
            except DiskFull as error:
                LOG.warning("the journal cannot be compacted now: %s", error)
                self._limit = 2 * size
        elif size > self._limit:
            snapshot = snapshot_line(self._snapshot)
            self._limit = max(self._min_bytes, self._snapshots * len(snapshot))
            if self._limit < size and len(snapshot) < MAX_LINE:
                self._prepared = size, snapshot
