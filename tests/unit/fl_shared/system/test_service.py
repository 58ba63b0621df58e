"""What systemd is told, on a real datagram socket."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fl_shared.system.service import Service


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(0.0)
        yield listening


def said(manager: socket.socket) -> list[str]:
    """What it has been told since the last call."""
    found = []
    while True:
        try:
            found.append(manager.recv(4096).decode())
        except BlockingIOError:
            return found


def of(manager: socket.socket, **more: str) -> Service:
    return Service({"NOTIFY_SOCKET": manager.getsockname(), **more})


def test_a_service_says_that_it_is_ready_what_it_does_and_that_it_ends(manager: socket.socket) -> None:
    service = of(manager)
    service.ready()
    service.turn(100.0, lambda: "round 1")
    service.turn(100.5, lambda: "round 2")
    service.turn(101.0, lambda: "round 2")
    service.turn(102.0, lambda: "round 2")
    service.turn(103.0, lambda: "the task 'a\nREADY=0' is here")
    service.stopping()
    assert said(manager) == [
        "READY=1", "STATUS=round 1", "STATUS=round 2", "STATUS=the task 'a READY=0' is here", "STOPPING=1",
    ]  # fmt: skip
    assert service.due == math.inf, "there is no watchdog"


def test_the_watchdog_hears_of_the_loop_twice_in_its_time(manager: socket.socket) -> None:
    service = of(manager, WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid()))
    assert service.due < 0, "at once"
    heard = []
    for second in range(30):
        service.turn(float(second), lambda: "still")
        if any("WATCHDOG=1" in text for text in said(manager)):
            heard.append(second)
        assert service.due == heard[-1] + 5
    assert heard == [0, 5, 10, 15, 20, 25]


def test_a_watchdog_with_little_patience_is_told_more_often(manager: socket.socket) -> None:
    service = of(manager, WATCHDOG_USEC="500000")
    for tenth in range(11):
        service.turn(tenth / 10, lambda: "still")
    assert len(said(manager)) in (4, 5)


def test_the_watchdog_of_another_process_is_not_told(manager: socket.socket) -> None:
    service = of(manager, WATCHDOG_USEC="10000000", WATCHDOG_PID="1")
    service.turn(0.0, lambda: "here")
    assert said(manager) == ["STATUS=here"]


def test_an_abstract_address_is_one() -> None:
    name = f"fl-mqtt-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        listening.settimeout(0.0)
        Service({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert said(listening) == ["READY=1"]


def test_nobody_is_told_without_a_manager_or_if_it_is_gone(tmp_path: Path) -> None:
    for environment in ({}, {"WATCHDOG_USEC": "10000000"}, {"NOTIFY_SOCKET": str(tmp_path / "gone")}):
        service = Service(environment)
        service.ready()
        service.turn(0.0, lambda: "here")
        service.stopping()
    Service({}).turn(0.0, lambda: pytest.fail("what it does is not looked at"))
