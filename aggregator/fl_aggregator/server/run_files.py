"""Writes what a run leaves in its directory and in its ledger. The run is paused while the disk has no space for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeVar

from fl_aggregator.monitoring.views.round_record import RoundRecord, read_records
from fl_aggregator.round import effects as do
from fl_aggregator.round.state import Run
from fl_aggregator.server.disk_pause import DiskPause
from fl_aggregator.server.launch import Launch
from fl_aggregator.storage.disk_space import raising_disk_full
from fl_aggregator.storage.run_directory import RunRecord, utc_now

LOG: Final = logging.getLogger(__name__)

SMALL_WRITE_BYTES: Final = 4096
"""About as many bytes as a line of the journal or the history, or a directory entry, may need."""

WriteResultT = TypeVar("WriteResultT")


class RunFiles:
    """The files of one run. All methods raise ``OSError`` if they cannot be written."""

    def __init__(self, launch: Launch, disk_pause: DiskPause) -> None:
        self._run = launch.record.run
        self._directory = launch.directory
        self._ledger = launch.ledger
        self._disk_pause = disk_pause

    def _write(self, action: Callable[[], WriteResultT]) -> WriteResultT:
        """Writes something small into the run directory, and returns the result of ``action``."""

        def write() -> WriteResultT:
            with raising_disk_full(SMALL_WRITE_BYTES, self._directory.path):
                return action()

        return self._disk_pause.attempt(write)

    def record(self, effect: do.Record) -> None:
        """Appends an event to the journal."""
        self._write(lambda: self._directory.journal.append(effect.event))

    def record_sum(self, state: Run) -> None:
        """Tells the ledger who is in the sum of a closed round, which nobody has seen yet."""
        if (ledger := self._ledger) is not None:
            self._disk_pause.attempt(lambda: ledger.record_sum(self._run, state))

    def record_publication(self, version: int) -> None:
        """Tells the ledger that a version is about to be published."""
        if (ledger := self._ledger) is not None:
            self._disk_pause.attempt(lambda: ledger.publish(self._run, version))

    def append_history(self, record: RoundRecord) -> None:
        """Appends the line of a round to the history."""
        self._write(lambda: self._directory.append_history(record.history_fields()))

    def store_best(self, version: int) -> None:
        """Makes a version the best one so far."""
        if not self._write(lambda: self._directory.checkpoints.store_best(version)):
            LOG.warning(
                "version %d is the best so far, but its checkpoint is missing: best.safetensors is not changed",
                version,
            )

    def finish(self, record: RunRecord) -> None:
        """Completes them for a run that is finished: the metrics in its models, and its end in ``run.json``."""
        metrics = {
            line.version: line.metrics
            for line in read_records(self._directory.history())
            if line.outcome == "committed" and line.version is not None
        }
        self._disk_pause.attempt(lambda: self._directory.checkpoints.add_metrics(metrics))
        ended = record.model_copy(update={"ended": utc_now()})
        self._write(lambda: self._directory.write_run(ended))
