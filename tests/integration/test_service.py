"""What both programs tell systemd of a real run."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.wait import wait_until

pytestmark = pytest.mark.broker

RUN = ("--task", "synthetic-50", "--clients", "1", "--per-round", "1", "--rounds", "100000", "--holdout", "0")


class Manager:
    """The end of systemd: its socket, and all lines that it was told."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.environment = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "1000000"}
        self._lines: list[str] = []

    @property
    def lines(self) -> list[str]:
        try:
            while True:
                self._lines += self.socket.recv(4096).decode().splitlines()
        except BlockingIOError:
            return self._lines


@pytest.fixture
def managers(tmp_path: Path) -> Iterator[tuple[Manager, Manager]]:
    """Of the aggregator and of the edge."""
    both = Manager(tmp_path / "aggregator.socket"), Manager(tmp_path / "edge.socket")
    yield both
    for manager in both:
        manager.socket.close()


def test_both_programs_say_that_they_are_ready_alive_and_at_the_end(
    tmp_path: Path, mosquitto: Mosquitto, managers: tuple[Manager, Manager]
) -> None:
    of_aggregator, of_edge = managers
    with programs.edges(
        tmp_path / "edge", mosquitto.url, "0", "--task", "synthetic-50", environment=of_edge.environment
    ) as edge:
        waits = "STATUS=1 of 1 edges connected, 0 in a run"
        wait_until(lambda: waits in of_edge.lines, 30, "the edge has its broker")
        assert of_edge.lines[0] == "READY=1", "though there is no run"
        with programs.Program(
            tmp_path / "run", "fl-aggregator", "start", "--broker", mosquitto.url, "--keepalive", "2",
            "--run-dir", str(tmp_path / "run" / "run"), *RUN, environment=of_aggregator.environment,
        ) as aggregator:  # fmt: skip
            admitted = "STATUS=1 of 1 edges connected, 1 in a run"
            wait_until(lambda: admitted in of_edge.lines, 30, "the edge is admitted")
            wait_until(
                lambda: any("collecting" in line for line in of_aggregator.lines), 30, "a round is open"
            )
            assert of_aggregator.lines[0] == "READY=1"
            beats = of_aggregator.lines.count("WATCHDOG=1")
            wait_until(lambda: of_aggregator.lines.count("WATCHDOG=1") > beats + 1, 30, "its loop turns")
            programs.freeze(aggregator.pid)
            wait_until(lambda: programs.is_stopped(aggregator.pid), 10, "it hangs")
            hanging = list(of_aggregator.lines)
            beats = of_edge.lines.count("WATCHDOG=1")
            wait_until(lambda: of_edge.lines.count("WATCHDOG=1") > beats + 4, 30, "two seconds have passed")
            assert of_aggregator.lines == hanging, "nobody says that a loop turns that does not"
            programs.thaw(aggregator.pid)
            aggregator.send(signal.SIGTERM)
            assert aggregator.wait(30) == 130
        assert of_aggregator.lines[-1] == "STOPPING=1"
        edge.send(signal.SIGTERM)
        assert edge.wait(30) == 130
    assert of_edge.lines[-1] == "STOPPING=1"


def test_an_aggregator_without_a_broker_is_not_ready(
    tmp_path: Path, managers: tuple[Manager, Manager]
) -> None:
    manager, _ = managers
    with programs.Program(
        tmp_path, "fl-aggregator", "start", "--broker", "mqtt://127.0.0.1:1", "--run-dir", str(tmp_path / "run"),
        environment=manager.environment,
    ) as aggregator:  # fmt: skip
        assert aggregator.wait(60) == 2
    assert manager.lines == ["STOPPING=1"]
