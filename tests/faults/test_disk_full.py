"""A run whose disk is full stands still, says so, and goes on when there is room: on a real, small file system."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from fl_aggregator.storage.checkpoint import model_sha256
from fl_aggregator.storage.disk_space import has_space
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from tests.support import builders, programs, synthetic_run
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.synthetic_run import TASK
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

SIZE = 96 * 2**20
UPDATE = 12_000_000
"""And a checkpoint: bytes of a model of `synthetic_run.TASK`."""


class SmallDisk:
    """A file system of ``SIZE`` bytes, of which a ballast takes as many as a test wants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def leave(self, size: int) -> None:
        """So many bytes stay free."""
        self.clear()
        with self._ballast.open("wb") as file:
            if (taken := shutil.disk_usage(self.path).free - size) > 0:
                os.posix_fallocate(file.fileno(), 0, taken)

    def clear(self) -> None:
        self._ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here (root may): {mounted.stderr.strip()}")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def aggregator(tmp_path: Path, broker: Mosquitto, *arguments: str) -> programs.Program:
    """Its run directory is on the small disk, and its output is not."""
    return programs.Program(
        tmp_path / "aggregator", "fl-aggregator", "start", "--broker", broker.url,
        "--keepalive", programs.KEEPALIVE, *arguments,
    )  # fmt: skip


def paused(observer: Client) -> list[m.Status]:
    return [status for status in observer.all(m.Status) if status.paused is not None]


def until_paused(observer: Client) -> m.Status:
    found: list[m.Status] = wait_until(lambda: paused(observer), 60, "the run is paused")
    return found[0]


def test_looking_for_room_sees_that_there_is_none(disk: SmallDisk) -> None:
    disk.leave(2**20)
    assert has_space(disk.path, 2**19)
    assert not has_space(disk.path, 2**21)
    assert [path.name for path in disk.path.iterdir()] == ["ballast"]
    disk.leave(0)
    assert not has_space(disk.path, 1)


@pytest.mark.parametrize(
    ("size", "room", "accepted", "where"),
    [
        (UPDATE, 2.5, {0, 1}, "spool"),
        pytest.param(UPDATE, 4.5, {3}, "checkpoints", marks=pytest.mark.long),
        pytest.param(2_000_000, 2.5, {1}, "spool", marks=pytest.mark.long),
    ],
    ids=["the second update does not fit", "the model does not fit", "the second small update does not fit"],
)
def test_a_full_disk_pauses_the_run(
    tmp_path: Path, disk: SmallDisk, mosquitto: Mosquitto, undisturbed: dict[int, str],
    size: int, room: float, accepted: set[int], where: str,
) -> None:  # fmt: skip
    """In models: the first weights need 2 (their update and version 0), round 1 needs 5 (4 and version 1).

    Small updates come whole; of large ones the second may find no room while the first is still coming.
    """
    disk.leave(int(room * size))
    run_dir, task = disk.path / "run", f"synthetic-{size // 4}"
    arguments = ("--run-dir", str(run_dir), *synthetic_run.settings(3), "--deadline", "20", "--task", task)
    with (
        Client(mosquitto.endpoint, "fl/#", reconnect=True) as observer,
        programs.edges(tmp_path / "edges", mosquitto.url, "0-2", "--task", task) as edges,
        aggregator(tmp_path, mosquitto, *arguments) as run,
    ):
        first = until_paused(observer)
        so_far = len(observer.all(m.Accepted, round=1))
        assert first.paused is not None
        assert first.paused.startswith(f"disk full: {run_dir / where}: needs {size / 1e6} MB")
        assert first.round == 1
        assert so_far in accepted
        wait_until(lambda: len(paused(observer)) >= 2, 20, "the status is repeated, every 5 s")
        during = paused(observer)
        assert {status.seconds_left for status in during} == {first.seconds_left}, "run time stands still"
        assert len(observer.all(m.Accepted, round=1)) == so_far, "nothing is accepted meanwhile"
        assert not observer.all(m.Result, round=1)
        assert run.running(), run.output
        disk.clear()
        wait_until(lambda: observer.all(m.Status)[-1].paused is None, 30, "it goes on by itself")
        run.ends_well()
    assert run.err.count("paused: disk full") == 1, run.output
    assert run.err.count("continuing after a pause") == 1, run.output
    assert synthetic_run.trainings(edges) == {0: 1, 1: 3, 2: 3, 3: 3}, "nobody trains twice"
    assert [line["version"] for line in history(run_dir)] == [1, 2, 3]
    if task == TASK:
        assert model_sha256(run_dir / "model.safetensors") == undisturbed[3]
    assert list((run_dir / "spool").iterdir()) == []


def history(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("room", "how"),
    [
        (2.5, "Ctrl-C"),
        pytest.param(4.5, "Ctrl-C", marks=pytest.mark.long),
        pytest.param(2.5, "fl-aggregator stop", marks=pytest.mark.long),
    ],
)
def test_an_interruption_ends_the_pause_and_a_resume_goes_on(
    tmp_path: Path, disk: SmallDisk, mosquitto: Mosquitto, undisturbed: dict[int, str], room: float, how: str
) -> None:
    disk.leave(int(room * UPDATE))
    run_dir = disk.path / "run"
    with (
        Client(mosquitto.endpoint, "fl/#", reconnect=True) as observer,
        programs.edges(tmp_path / "edges", mosquitto.url, "0-2", "--task", TASK) as edges,
    ):
        with aggregator(tmp_path, mosquitto, "--run-dir", str(run_dir), *synthetic_run.settings(3)) as run:
            until_paused(observer)
            if how == "Ctrl-C":
                run.send(signal.SIGINT)
            else:
                with programs.Program(
                    tmp_path / "stop", "fl-aggregator", "stop", "--broker", mosquitto.url
                ) as stop:
                    stop.ends_well(20)
            assert run.wait(10) == 130, run.output
        assert f"--resume {run_dir}" in run.out.splitlines()[-1]
        assert observer.wait_for_message(m.Status, phase="interrupted").round is None
        disk.clear()
        with aggregator(tmp_path, mosquitto, "--resume", str(run_dir)) as again:
            again.ends_well()
    assert synthetic_run.trainings(edges) == {0: 1, 1: 3, 2: 3, 3: 3}, "nobody trains twice"
    assert model_sha256(run_dir / "model.safetensors") == undisturbed[3]


def test_a_broker_that_dies_in_a_pause_hears_of_it_again(
    tmp_path: Path, disk: SmallDisk, mosquitto: Mosquitto, undisturbed: dict[int, str]
) -> None:
    disk.leave(int(2.5 * UPDATE))
    run_dir = disk.path / "run"
    with (
        Client(mosquitto.endpoint, "fl/#", reconnect=True) as observer,
        programs.edges(tmp_path / "edges", mosquitto.url, "0-2", "--task", TASK) as edges,
        aggregator(tmp_path, mosquitto, "--run-dir", str(run_dir), *synthetic_run.settings(3)) as run,
    ):
        until_paused(observer)
        mosquitto.kill()
        seen = len(paused(observer))
        mosquitto.start()
        wait_until(lambda: len(paused(observer)) > seen, 15, "it says again that it is paused")
        disk.clear()
        run.ends_well()
    assert synthetic_run.trainings(edges) == {0: 1, 1: 3, 2: 3, 3: 3}, "nobody trains twice"
    assert model_sha256(run_dir / "model.safetensors") == undisturbed[3]


def test_first_weights_that_find_no_room_end_the_command(
    tmp_path: Path, disk: SmallDisk, mosquitto: Mosquitto
) -> None:
    """There is no run yet that could wait."""
    weights = tmp_path / "first.safetensors"
    weights.write_bytes(save({"weight": np.zeros(500_000, np.float32)}, {"buffers": "[]"}))
    disk.leave(2**20)
    run_dir = disk.path / "run"
    with aggregator(tmp_path, mosquitto, "--run-dir", str(run_dir), "--init", str(weights)) as run:
        assert run.wait(30) == 1
    assert run.err.splitlines() == [f"fl-aggregator: disk full: {run_dir / 'checkpoints'}: needs 2.0 MB"]
    assert not run_dir.exists()


def test_a_disk_that_is_full_at_the_start_ends_the_command(
    tmp_path: Path, disk: SmallDisk, mosquitto: Mosquitto
) -> None:
    """And no run is to be resumed that has not begun."""
    disk.leave(0)
    run_dir = disk.path / "run"
    with aggregator(tmp_path, mosquitto, "--run-dir", str(run_dir)) as run:
        assert run.wait(30) == 1
    reason = f"{run_dir}: No space left on device; when this is fixed, start again: no run has begun"
    assert run.err.splitlines() == [f"fl-aggregator: {reason}"]
    assert not run_dir.exists()


def test_a_journal_that_cannot_grow_pauses_the_run(
    tmp_path: Path, disk: SmallDisk, mosquitto: Mosquitto
) -> None:
    """Registrations come until its page is full; none is answered that is not written down."""
    run_dir = disk.path / "run"
    many = 60
    arguments = ("--run-dir", str(run_dir), "--clients", "100", "--wait", "60")
    with (
        Client(mosquitto.endpoint, "fl/#", reconnect=True) as observer,
        aggregator(tmp_path, mosquitto, *arguments) as run,
    ):
        observer.wait_for_message(m.Status, phase="selecting")
        disk.leave(0)
        for number in range(many):
            register(observer, f"e{number}")
        first = until_paused(observer)
        assert first.paused == f"disk full: {run_dir}: needs 4.1 kB"
        time.sleep(2.0)
        answered = len(observer.all(m.Admitted))
        assert answered == events(run_dir).count("Registered") < many
        assert len(paused(observer)) == 1
        disk.clear()
        wait_until(lambda: len(observer.all(m.Admitted)) == many, 10, "everybody is answered")
        assert events(run_dir).count("Registered") == many
        run.send(signal.SIGTERM)
        assert run.wait(10) == 130, run.output


def register(sender: Client, client: str) -> None:
    message = builders.registration(client, seq=1, session=f"s-{client}", device=f"d-{client}", task="digits")
    sender.send(t.RegisterTopic(client), message)


def events(run_dir: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (run_dir / "journal.jsonl").read_text().splitlines()]
