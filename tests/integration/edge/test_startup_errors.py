"""An edge that cannot start says why and exits with 2."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.edge_process import Start
from tests.support.simulated_aggregator import SimulatedAggregator

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.timeout(480)]


def run_edge(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return programs.run("fl-edge", *arguments, cwd=tmp_path, environment={**os.environ, **environment})


def test_a_second_edge_with_the_same_state_directory_exits_2(
    shared_mosquitto: Mosquitto, stack: ExitStack, start: Start, tmp_path: Path
) -> None:
    wire = stack.enter_context(SimulatedAggregator(shared_mosquitto.endpoint, "edge/lock"))
    first = start(shared_mosquitto.url, "edge/lock", "--id", "7")
    wire.expect(m.Registration, 20)
    second = run_edge(tmp_path, "--id", "7", "--broker", shared_mosquitto.url)
    assert second.returncode == 2
    assert f"in use by process {first.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_wrong_address_is_told_and_wait_bounds_it(tmp_path: Path) -> None:
    ended = run_edge(tmp_path, "--id", "7", "--broker", "mqtt://127.0.0.1:1", "--wait", "1")
    assert ended.returncode == 2
    assert "nothing listens on port 1 of 127.0.0.1" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_broker_that_wants_an_account_ends_it_with_2(tmp_path: Path) -> None:
    directory = tmp_path / "closed"
    directory.mkdir()
    broker = Mosquitto(directory, allow_anonymous=False)
    try:
        ended = run_edge(tmp_path, "--id", "7", "--broker", broker.url)
    finally:
        broker.stop()
    assert ended.returncode == 2
    assert "FL_PASSWORD" in ended.stderr
    assert "Traceback" not in ended.stderr
