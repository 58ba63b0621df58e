"""A worker pool under test, with waits for its results."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from fl_edge.tasks.registry import load_task
from fl_edge.training import local_training
from fl_edge.workers.jobs import JobOutcome, JobResult
from fl_edge.workers.pool import Pool
from fl_edge.workers.protocol import CacheModel
from fl_shared.system.shared_memory import SharedBytes
from tests.support.builders import partition, training_request
from tests.support.wait import PATIENCE, wait_until

SEVEN = (Path(__file__).parents[2] / "examples" / "seven.png").read_bytes()
LONG = 1_000_000
"""Epochs that take practically forever."""

Kind = TypeVar("Kind", bound=JobOutcome)


class PoolHarness:
    """A pool and its results."""

    def __init__(self, workers: int, **options: Any) -> None:
        self.results: SimpleQueue[JobResult] = SimpleQueue()
        self.kept: dict[int, JobResult] = {}
        self.pool = Pool(
            workers, options.pop("data_dir", None), options.pop("device", "cpu"), self.results.put, **options
        )

    def result(self, job_id: int, timeout: float = 30) -> JobOutcome:
        deadline = time.monotonic() + timeout * PATIENCE
        while job_id not in self.kept:
            try:
                result = self.results.get(timeout=max(0, deadline - time.monotonic()))
            except Empty:
                raise AssertionError(f"job {job_id} has no result after {timeout * PATIENCE} s") from None
            assert result.id not in self.kept, "two results of one job"
            self.kept[result.id] = result
        return self.kept[job_id].outcome

    def expect(self, kind: type[Kind], job_id: int, timeout: float = 30) -> Kind:
        outcome = self.result(job_id, timeout)
        assert isinstance(outcome, kind), outcome
        return outcome

    def wait_ready(self, workers: int = 1) -> None:
        """Waits until ``workers`` workers can begin."""
        wait_until(
            lambda: sum(slot.ready for slot in self.pool._slots) >= workers,
            60,
            f"{workers} workers are ready",
        )

    def pids(self) -> list[int]:
        return [slot.process.pid for slot in self.pool._slots if slot.process is not None]


@lru_cache
def first_model(task: str = "digits", digest: str = "d0") -> CacheModel:
    """The model of round 0 with seed 0, under this digest."""
    manifest, weights = local_training.initial_weights(load_task(task), 0)
    return CacheModel(digest, manifest, SharedBytes.copy_of(weights.astype("<f4").tobytes()))


def train_for_ever(harness: PoolHarness, client: str = "edge-0") -> int:
    return harness.pool.train(
        client, "digits", partition(), first_model(), training_request(epochs=LONG, lr=1e-9), 1
    )
