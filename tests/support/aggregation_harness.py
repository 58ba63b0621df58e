"""The worker of an aggregator with its directory, without a round, which a test can use and crash."""

from __future__ import annotations

import queue
from pathlib import Path

import numpy as np

from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.strategies.parts import Strategy
from fl_aggregator.aggregation.worker import AggregationWorker, JobDone
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.storage.checkpoint import Model
from fl_aggregator.storage.disk_space import DiskFull
from fl_aggregator.storage.run_directory import RunDirectory
from fl_shared.protocol import messages as m
from fl_shared.tensors.manifest import manifest_of
from fl_shared.transfer.upload_scheduler import ChunkGrant
from tests.support.builders import facts_of

SETTINGS = Settings(task="digits", clients=4, per_round=3, rounds=5)
BASE = Model.of(
    manifest_of({"a": np.zeros((30, 50), "<f4"), "b": np.zeros(7, "<f4")}),
    np.random.default_rng(0).normal(size=1507).astype("<f4"),
)
REFERENCE = m.ModelReference(version=0, digest=BASE.digest)
CHUNK = 1024


class Incarnation:
    """One incarnation of an aggregator's worker, which can end without any clean-up."""

    def __init__(self, path: Path, version: int | None, strategy: Strategy | None = None) -> None:
        self.directory = RunDirectory(path, resume=(path / "run.json").exists())
        self.directory.begin_writing()
        (path / "run.json").touch()
        self.done: queue.SimpleQueue[JobDone] = queue.SimpleQueue()
        self.granted: list[ChunkGrant] = []
        self.full: list[DiskFull] = []
        strategy = strategy or registry.load(SETTINGS)
        self.worker = AggregationWorker(
            SETTINGS, strategy, self.directory, self.granted.append, self.done.put
        )
        if version == 0:
            self.worker.averager.add(0, BASE)

    def next(self) -> JobDone:
        """The thread's next finished job, after its effects. A job that found no room is repeated."""
        done = self.done.get(timeout=20)
        assert done.error is None, done.error
        if done.retry is not None:
            assert done.disk_full is not None
            self.full.append(done.disk_full)
            done.retry()
            done = JobDone()  # lets go of the bytes
            return self.next()
        if isinstance(done.event, on.UpdateStored):
            self.worker.fold(do.Fold(done.event.update, done.event.update.round))
        self.worker.release(done, 0.0)
        return done

    def accept(self, *updates: m.Update) -> tuple[on.UpdateMetadata, ...]:
        for update in updates:
            self.worker.store(facts_of(update), update)
            assert isinstance(self.next().event, on.UpdateStored)
        return tuple(map(facts_of, updates))

    def average(self, updates: tuple[on.UpdateMetadata, ...], round_number: int = 1, version: int = 1) -> str:
        base = None if version == 0 else REFERENCE
        self.worker.average(do.Average(round_number, version, base, updates))
        event = self.next().event
        assert isinstance(event, on.ModelCreated)
        return event.digest

    def end(self) -> None:
        self.worker.close()
        self.directory.close()
