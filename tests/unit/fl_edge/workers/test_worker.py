"""How worker processes live and die: killed, stopped, orphaned, broken, replaced."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from fl_edge.workers.failures import log_trace
from fl_edge.workers.jobs import FailureOutcome, Job, LoadOutcome, PredictOutcome, TrainOutcome
from fl_edge.workers.limits import Limits
from fl_edge.workers.pool import Pool
from fl_edge.workers.process import WORKER
from tests.support import programs, rogue_tasks
from tests.support.builders import partition, training_request
from tests.support.pool_harness import SEVEN, PoolHarness, first_model, train_for_ever
from tests.support.wait import wait_until

pytestmark = pytest.mark.edge


@pytest.fixture
def start(forked_children: None) -> Iterator[Callable[..., PoolHarness]]:
    """Starts pools that end with the test."""
    started: list[PoolHarness] = []

    def start(workers: int = 1, **options: Any) -> PoolHarness:
        started.append(PoolHarness(workers, **options))
        return started[-1]

    yield start
    for harness in started:
        harness.pool.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_missing_data_is_a_kind_of_its_own(start: Callable[..., PoolHarness], tmp_path: Path) -> None:
    harness = start(data_dir=tmp_path / "gone")
    failed = harness.expect(FailureOutcome, harness.pool.load("e", "mnist", partition()), timeout=60)
    assert failed.kind == "data-missing"
    assert "gone is not a directory" in failed.message


def test_a_killed_worker_fails_its_job_alone_and_is_replaced(start: Callable[..., PoolHarness]) -> None:
    harness = start(2)
    harness.wait_ready(2)
    doomed, spared = train_for_ever(harness), train_for_ever(harness)
    (victim,) = [slot.process for slot in harness.pool._slots if slot.job == doomed]
    assert victim is not None
    time.sleep(0.3)
    os.kill(victim.pid, signal.SIGKILL)
    failed = harness.expect(FailureOutcome, doomed, timeout=5)
    assert failed.kind == "failed"
    assert f"worker process {victim.pid} was killed by SIGKILL" in failed.message
    harness.wait_ready(2)
    assert victim.pid not in harness.pids()
    harness.expect(LoadOutcome, harness.pool.load("e", "digits", partition()), timeout=30)
    assert spared not in harness.kept


def test_a_worker_that_does_not_obey_a_cancel_is_killed(start: Callable[..., PoolHarness]) -> None:
    harness = start(limits=Limits(cancel_grace=0.3))
    harness.wait_ready()
    job = train_for_ever(harness)
    (pid,) = harness.pids()
    os.kill(pid, signal.SIGSTOP)
    harness.pool.cancel(job)
    assert harness.expect(FailureOutcome, job, timeout=5).kind == "cancelled"
    assert not alive(pid)


def test_a_device_that_is_not_there_ends_it_for_good(start: Callable[..., PoolHarness]) -> None:
    harness = start(2, device="cuda:77")
    ids = [harness.pool.load("e", "digits", partition()) for _ in range(3)]
    for job in ids:
        assert "--device cuda:77 cannot be used" in harness.expect(FailureOutcome, job, timeout=60).message
    late = harness.pool.load("e", "digits", partition())
    assert "cuda:77" in harness.expect(FailureOutcome, late, timeout=1).message
    wait_until(lambda: not harness.pids(), 20, "no worker is left")


@pytest.fixture
def rogues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of another distribution that behave badly."""
    rogue_tasks.install(tmp_path, monkeypatch)


@pytest.mark.usefixtures("rogues")
def test_what_a_task_prints_does_not_get_between_the_frames(
    start: Callable[..., PoolHarness], tmp_path: Path
) -> None:
    with (tmp_path / "said").open("wb") as said:
        harness = start(stderr=said)
        first = harness.pool.train("e", "loud", partition(), None, training_request(), 0)
        harness.expect(TrainOutcome, first, timeout=60)
        harness.expect(LoadOutcome, harness.pool.load("e", "loud", partition()))
    text = (tmp_path / "said").read_text()
    assert "x" * 1000 in text
    assert "I am a child" in text


def test_its_log_has_the_format_of_its_parents_and_names_the_edge(
    start: Callable[..., PoolHarness], tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    rows = "".join(f"{number},{number % 2}\n" for number in range(100))
    (tmp_path / "data" / "table.csv").write_text("area,sold\n" + rows)
    with (tmp_path / "said").open("wb") as said:
        program = (*WORKER, "--log-format", "json")
        harness = start(stderr=said, data_dir=tmp_path / "data", program=program, light=True, warm=False)
        loaded = harness.pool.load("north", "tabular?target=sold", partition(index=0, count=2, scheme="iid"))
        harness.expect(LoadOutcome, loaded, timeout=60)
    lines = [json.loads(line) for line in (tmp_path / "said").read_text().splitlines()]
    assert {line["client"] for line in lines} == {"north"}
    (warning,) = [line["message"] for line in lines if line["level"] == "warning"]
    assert "its 100 examples are divided among 2 edges (--partition iid)" in warning


@pytest.mark.usefixtures("rogues")
def test_a_worker_that_keeps_dying_is_not_replaced_for_ever(start: Callable[..., PoolHarness]) -> None:
    harness = start(limits=Limits(max_failures=2, first_pause=0.01))
    ids = [harness.pool.load("e", "deadly", partition()) for _ in range(3)]
    messages = [harness.expect(FailureOutcome, job, timeout=60).message for job in ids]
    assert "exited with code 3" in messages[0]
    assert all("2 times in a row" in message for message in messages[1:])


MISTAKES = {
    "exits": "SystemExit: 3",
    "interrupts": "KeyboardInterrupt: KeyboardInterrupt",
    "unprintable": "Unprintable: Unprintable",
    "surrogates": "a  b",
    "crashes": "was killed by SIGSEGV",
}


@pytest.mark.usefixtures("rogues")
def test_whatever_a_task_does_its_job_alone_fails(start: Callable[..., PoolHarness]) -> None:
    harness = start(limits=Limits(first_pause=0.01))
    for task, words in MISTAKES.items():
        for begin in (predict, train):
            failed = harness.expect(FailureOutcome, begin(harness, task), timeout=60)
            assert words in failed.message, failed
            # Its result comes once, though two processes return.
            harness.expect(TrainOutcome, train(harness, "forks"), timeout=60)


def test_descriptors_get_to_a_forked_process_whatever_their_numbers(
    start: Callable[..., PoolHarness],
) -> None:
    """Processes of the tests are forked, and have their descriptors sent; some are put aside above 100 meanwhile."""
    many = [os.open(os.devnull, os.O_RDONLY)]
    while many[-1] < 102:
        many.append(os.open(os.devnull, os.O_RDONLY))
    try:
        harness = start()
        harness.expect(LoadOutcome, harness.pool.load("e", "digits", partition()), timeout=60)
    finally:
        for one in many:
            os.close(one)


@pytest.mark.usefixtures("rogues")
def test_the_traceback_of_an_error_is_logged_once_and_its_place_is_in_each_message(
    start: Callable[..., PoolHarness], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_trace.cache_clear()
    with (tmp_path / "said").open("wb") as said:
        harness = start(2, stderr=said)
        for _ in range(3):
            failed = harness.expect(FailureOutcome, train(harness, "exits"), timeout=60)
            assert re.fullmatch(r"SystemExit: 3 \(rogue_tasks\.py, line \d+\)", failed.message)
        harness.pool.close()
    (trace,) = [record.exception for record in caplog.records if hasattr(record, "exception")]
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith("SystemExit: 3")
    assert "Traceback" not in (tmp_path / "said").read_text()


@pytest.mark.usefixtures("rogues")
def test_a_prediction_that_hangs_is_ended_with_its_worker(start: Callable[..., PoolHarness]) -> None:
    harness = start(limits=Limits(first_pause=0.01, prediction_timeout=0.1))
    failed = harness.expect(FailureOutcome, predict(harness, "hangs"), timeout=60)
    assert "the task did not end within 0.1 s: its worker process was killed" in failed.message
    harness.expect(TrainOutcome, train(harness, "forks"), timeout=60)


class OnlyHangingIsLate(Limits):
    """No job is late, except for predictions of the task ``hangs``."""

    def seconds_for(self, job: Job) -> float:
        return 0.1 if job.task == "hangs" else math.inf


@pytest.mark.usefixtures("rogues")
def test_what_a_late_prediction_has_taken_is_known_and_its_neighbours_are_done_again(
    start: Callable[..., PoolHarness],
) -> None:
    harness = start(limits=OnlyHangingIsLate(first_pause=0.01))
    harness.wait_ready()
    training = train_for_ever(harness)
    late = predict(harness, "hangs")
    behind = harness.pool.predict("digits", first_model(), SEVEN)
    assert "within 0.1 s" in harness.expect(FailureOutcome, late).message
    assert harness.kept[late].seconds >= 0.1
    harness.expect(PredictOutcome, behind)
    (slot,) = harness.pool._slots
    wait_until(lambda: slot.job == training, 20, "the training has begun anew")
    harness.expect(FailureOutcome, predict(harness, "hangs"))
    assert "within 0.1 s" in harness.expect(FailureOutcome, training).message, "it is done again once"


@pytest.mark.usefixtures("rogues")
def test_a_cancelled_job_is_not_done_again(start: Callable[..., PoolHarness]) -> None:
    harness = start(limits=OnlyHangingIsLate(first_pause=0.01))
    harness.wait_ready()
    training = train_for_ever(harness)
    (pid,) = harness.pids()
    os.kill(pid, signal.SIGSTOP)  # it does not see the cancel
    late = predict(harness, "hangs")
    harness.pool.cancel(training)
    assert harness.expect(FailureOutcome, training).kind == "cancelled"
    assert "within 0.1 s" in harness.expect(FailureOutcome, late).message


@pytest.mark.usefixtures("rogues")
def test_late_predictions_do_not_end_a_worker_for_good(start: Callable[..., PoolHarness]) -> None:
    harness = start(limits=OnlyHangingIsLate(first_pause=0.01, max_failures=1))
    for _ in range(2):
        assert harness.expect(FailureOutcome, predict(harness, "hangs"), timeout=60).kind == "failed"
    harness.expect(LoadOutcome, harness.pool.load("e", "digits", partition()), timeout=60)


@pytest.mark.usefixtures("rogues")
def test_the_time_of_a_prediction_begins_when_the_one_before_it_has_ended(
    start: Callable[..., PoolHarness], tmp_path: Path
) -> None:
    harness = start()
    harness.wait_ready()
    pipes = [tmp_path / f"pipe-{number}" for number in range(3)]
    for pipe in pipes:
        os.mkfifo(pipe)
    ids = [harness.pool.predict("waiting", first_model(), os.fsencode(pipe)) for pipe in pipes]
    for pipe, job in zip(pipes, ids, strict=True):
        assert set(harness.pool._deadlines._at) == {job}
        pipe.write_bytes(b"")
        harness.expect(PredictOutcome, job)
    assert not harness.pool._deadlines._at


def predict(harness: PoolHarness, task: str) -> int:
    return harness.pool.predict(task, first_model(), b"a request")


def train(harness: PoolHarness, task: str) -> int:
    return harness.pool.train("e", task, partition(), first_model(), training_request(), 1)


@pytest.mark.usefixtures("rogues")
def test_what_a_task_has_forked_ends_with_a_killed_worker(start: Callable[..., PoolHarness]) -> None:
    harness = start(limits=Limits(cancel_grace=0.1))
    harness.wait_ready()
    (worker,) = harness.pids()
    job = train(harness, "forks-and-hangs")
    forked = wait_until(lambda: programs.descendants(worker), 30, "the task forks")
    harness.pool.cancel(job)
    harness.expect(FailureOutcome, job)
    wait_until(lambda: not any(map(alive, forked)), 5, "the forked process ends")


def test_closing_ends_the_workers_whatever_they_do(start: Callable[..., PoolHarness]) -> None:
    harness = start(2)
    harness.wait_ready()
    jobs_open = [train_for_ever(harness) for _ in range(3)]
    pids = harness.pids()
    harness.pool.close()
    assert not any(alive(pid) for pid in pids)
    assert harness.results.empty()
    assert not set(jobs_open) & set(harness.kept)
    harness.pool.close()


def test_closing_ends_a_worker_that_is_stopped(start: Callable[..., PoolHarness]) -> None:
    harness = start(limits=Limits(close_grace=0.3))
    harness.wait_ready()
    (pid,) = harness.pids()
    os.kill(pid, signal.SIGSTOP)
    harness.pool.close()
    wait_until(lambda: not alive(pid), 5, "the worker has ended")


@pytest.mark.parametrize("state", ["importing", "busy"])
def test_workers_end_with_their_parent_when_it_is_killed(state: str) -> None:
    command = [sys.executable, "-m", "tests.support.pool_parent", state]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert parent.stdout.readline() == "go\n"
        assert len(pids) == 2
        assert all(alive(pid) for pid in pids)
    finally:
        parent.kill()
        parent.wait(10)
        parent.stdout.close()
    wait_until(lambda: not any(alive(pid) for pid in pids), 10, "no orphan is left")


def test_a_pool_has_workers() -> None:
    with pytest.raises(ValueError, match="workers: 0, expected at least 1"):
        Pool(0, None, "cpu", print)
