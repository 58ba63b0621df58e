"""Light edges take part in a run: beside full ones, and where torch is not installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.wait import wait_until
from tests.support.without_packages import NOT_IN_LITE, without_packages

pytestmark = [pytest.mark.broker, pytest.mark.timeout(480)]

RUN = ("--task", "digits-mlp", "--clients", "4", "--rounds", "4", "--epochs", "5", "--lr", "0.05")


@pytest.mark.edge
def test_light_and_full_edges_share_a_run(
    shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path
) -> None:
    prefix = ("--prefix", "light/mixed")
    url = shared_mosquitto.url
    full = stack.enter_context(programs.edges(tmp_path / "full", url, "0-1", "--evaluator", "test", *prefix))
    light = stack.enter_context(programs.edges(tmp_path / "light", url, "2-3", "--light", *prefix))
    every = stack.enter_context(programs.aggregator(tmp_path, url, *prefix, *RUN, "--per-round", "4"))
    every.ends_well()
    lines = programs.history(tmp_path)
    assert [line["participants"] for line in lines] == [["0", "1", "2", "3"]] * 4
    assert lines[-1]["metrics"]["accuracy"] > 0.9, lines[-1]
    assert {programs.loads(pid, "libtorch_cpu") for pid in programs.descendants(light.pid)} == {False}
    assert True in [programs.loads(pid, "libtorch_cpu") for pid in programs.descendants(full.pid)]


def test_an_edge_without_torch_trains_and_predicts(
    shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path
) -> None:
    prefix = ("--prefix", "light/alone")
    url = shared_mosquitto.url
    environment = without_packages(tmp_path / "site", *NOT_IN_LITE)
    edge = stack.enter_context(
        programs.edges(tmp_path / "edge", url, "0-3", *prefix, environment=environment)
    )
    run = stack.enter_context(programs.aggregator(tmp_path, url, *prefix, *RUN, "--per-round", "4"))
    run.ends_well()
    assert programs.history(tmp_path)[-1]["metrics"]["accuracy"] > 0.9, run.output
    wait_until(lambda: "training without torch" in edge.err, 5, "the edge says that it is light")
    assert "Traceback" not in edge.err, edge.output
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"pixels": [[0, 0, 255, 255, 0, 0, 0, 0]] * 8}))
    with programs.Program(
        tmp_path / "predict", "fl-aggregator", "predict", str(request), "--broker", url, *prefix, "--json"
    ) as predict:
        predict.ends_well()
        assert predict.result["label"] in "0123456789"


WITHOUT_SHM = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o ro none /dev/shm && exec "$@"', "sh")
"""Starts a program that can create nothing in /dev/shm."""


@pytest.mark.long
def test_a_light_edge_needs_no_dev_shm(shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path) -> None:
    if not shutil.which("unshare") or subprocess.run([*WITHOUT_SHM, "true"], capture_output=True).returncode:
        pytest.skip("this system does not let a test mount over /dev/shm")
    lock = subprocess.run([*WITHOUT_SHM, sys.executable, "-c", "import multiprocessing; multiprocessing.Lock()"],
                          capture_output=True, text=True)  # fmt: skip
    assert "Read-only file system" in lock.stderr, "what needs /dev/shm does not find it"
    where = ("--broker", shared_mosquitto.url, "--prefix", "light/shm")
    command = (
        str(programs.BIN / "fl-edge"),
        "--id",
        "0-1",
        "--light",
        "--state-dir",
        str(tmp_path / "state"),
    )
    program, *arguments = WITHOUT_SHM
    stack.enter_context(
        programs.Program(tmp_path / "edge", shutil.which(program) or "", *arguments, *command, *where)
    )
    run = stack.enter_context(
        programs.aggregator(tmp_path, shared_mosquitto.url, *where[2:], "--task", "digits-mlp", "--clients", "2",
                            "--rounds", "2")
    )  # fmt: skip
    run.ends_well()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ("--task", "mnist"),
            "task 'mnist' needs torch, which is not installed: pip install 'fl-mqtt[edge]'",
        ),
        pytest.param(
            ("--device", "cuda"),
            "--device cuda cannot be used without torch: pip install 'fl-mqtt[edge]'",
            marks=pytest.mark.long,
        ),
    ],
    ids=["task", "device"],
)
def test_without_torch_what_needs_it_is_refused_in_one_line(
    shared_mosquitto: Mosquitto, tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "fl_edge", "--id", "7", "--broker", shared_mosquitto.url, *arguments],
        cwd=tmp_path,
        env=without_packages(tmp_path / "site", *NOT_IN_LITE),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2, ended.stderr
    assert expected in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.long
def test_without_torch_and_pillow_the_demo_trains_and_its_picture_is_recognized(tmp_path: Path) -> None:
    environment = without_packages(tmp_path / "site", *NOT_IN_LITE, "PIL")
    ended = subprocess.run(
        [sys.executable, "-m", "fl_mqtt", "demo", "--run-dir", str(tmp_path / "run")],
        env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "prediction: 7 (9" in ended.stdout
    assert "Traceback" not in ended.stderr


@pytest.mark.long
def test_without_torch_simulate_runs_what_a_light_edge_can(tmp_path: Path) -> None:
    environment = without_packages(tmp_path / "site", *NOT_IN_LITE)
    arguments = ("--clients", "2", "--per-round", "2", "--rounds", "1")
    run = programs.simulate(tmp_path / "light", "--task", "digits-mlp", *arguments, environment=environment)
    with run:
        run.ends_well()
    refused = programs.simulate(tmp_path / "full", "--task", "mnist", *arguments, environment=environment)
    with refused:
        assert refused.wait() == 2
        assert "simulate needs torch, torchvision for its edges: pip install 'fl-mqtt[edge]'" in refused.err
        assert not (tmp_path / "full" / "run").exists()
