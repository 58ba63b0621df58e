"""Which jobs the workers of a run in virtual time begin, and when."""

from __future__ import annotations

from typing import cast

import pytest

from fl_edge.runtime.items import RuntimeInbox
from fl_edge.session import effects, events
from fl_edge.storage.label_counts_file import LabelCountsFile
from fl_edge.workers.jobs import FailureOutcome, JobResult, LoadJob
from fl_edge.workers.pool import Pool
from fl_mqtt.simulation.virtual.jobs import PoolJobs, Work
from fl_shared.protocol.messages import Partition

PARTITION = Partition(index=0, count=1, scheme="iid", seed=0, holdout=0)
WORK = Work(effects.Load(1, "synthetic-16", PARTITION))


class FakePool:
    """Notes which jobs it gets; `end` ends one."""

    def __init__(self, inbox: RuntimeInbox) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self._inbox = inbox

    def load(self, client: str, *_: object) -> int:
        self.begun.append(client)
        return len(self.begun) - 1

    def cancel(self, job_id: int) -> None:
        self.cancelled.append(self.begun[job_id])

    def end(self, client: str) -> None:
        job = LoadJob(client, "synthetic-16", PARTITION)
        outcome = FailureOutcome("data-missing", client)
        self._inbox.put(JobResult(self.begun.index(client), job, outcome, 0.0))


@pytest.fixture
def pool() -> FakePool:
    return FakePool(RuntimeInbox())


@pytest.fixture
def jobs(pool: FakePool) -> PoolJobs:
    """Of two workers."""
    return PoolJobs(cast(Pool, pool), pool._inbox, 2, LabelCountsFile(None), _no_check)


def _no_check() -> None:
    raise AssertionError("it has waited for a result that does not come")


def test_a_free_worker_begins_any_job_at_once_and_then_those_that_are_due_first(
    pool: FakePool, jobs: PoolJobs
) -> None:
    for client, due in (("a", 9.0), ("b", 8.0), ("c", 7.0), ("d", 6.0)):
        jobs.begin(client, WORK, due)
    assert pool.begun == ["a", "b"]
    pool.end("b")
    jobs.begin("e", WORK, 6.5)
    assert pool.begun == ["a", "b", "d"]
    pool.end("a")
    event = jobs.result("a", 1, 9.0)
    assert isinstance(event, events.JobFailed)
    assert (event.now, event.detail) == (9.0, "a")
    pool.end("d")
    jobs.result("d", 1, 10.0)
    assert pool.begun == ["a", "b", "d", "e", "c"]


def test_a_job_that_is_cancelled_before_a_worker_begins_it_costs_nothing(
    pool: FakePool, jobs: PoolJobs
) -> None:
    for client in "abcd":
        jobs.begin(client, WORK, 1.0)
    jobs.cancel("a", 1)
    jobs.cancel("c", 1)
    assert pool.cancelled == ["a"]
    pool.end("a")
    pool.end("b")
    jobs.result("b", 1, 1.0)
    assert pool.begun == ["a", "b", "d"]


def test_it_checks_whether_the_run_is_to_stop_while_it_waits(jobs: PoolJobs) -> None:
    jobs.begin("a", WORK, 1.0)
    with pytest.raises(AssertionError, match="a result that does not come"):
        jobs.result("a", 1, 1.0)
