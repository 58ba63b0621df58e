"""Ctrl-C and SIGTERM, once and twice, at any moment: what is to be kept is kept, and nothing else is left."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from fl_shared.protocol import messages as m
from fl_shared.system.mosquitto import accepts_connect
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.simulated_aggregator import retain_birth
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

BOTH = [signal.SIGINT, signal.SIGTERM]
SLOW = ("--task", "digits", "--clients", "3", "--per-round", "3", "--rounds", "50", "--epochs", "20000")
TINY = (
    "--task",
    "synthetic-50",
    "--clients",
    "3",
    "--per-round",
    "3",
    "--rounds",
    "100000",
    "--holdout",
    "0",
)


def leftovers(directory: Path) -> list[str]:
    """Locks, sockets, and what was only half written."""
    return [
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_socket() or path.name == ".lock" or path.suffix in (".tmp", ".partial")
    ]


def in_a_round(run: programs.Program, number: int = 1) -> None:
    wait_until(lambda: f"round {number}: selected" in run.err, 60, f"round {number}")


# --- before there is a run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", BOTH)
def test_while_connecting(tmp_path: Path, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        with programs.aggregator(tmp_path, f"mqtt://127.0.0.1:{silent.getsockname()[1]}") as run:
            peer, _ = silent.accept()
            with peer:
                time.sleep(0.3)
                run.send(number)
                assert run.wait(30) == 130, run.output
    assert run.err.strip() == "fl-aggregator: interrupted"
    assert not run.out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", BOTH)
def test_while_waiting_for_a_sign_of_life(
    tmp_path: Path, mosquitto: Mosquitto, number: signal.Signals
) -> None:
    retain_birth(mosquitto.endpoint)
    with programs.aggregator(tmp_path, mosquitto.url) as run:
        wait_until(lambda: "checking whether it is still running (6 s)" in run.err, 30, "the wait")
        run.send(number)
        assert run.wait(30) == 130, run.output
    assert "Traceback" not in run.err
    assert not run.out, "there is nothing to resume"
    assert not (tmp_path / "run").exists()


# --- during a run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", BOTH)
def test_while_waiting_for_edges(tmp_path: Path, mosquitto: Mosquitto, number: signal.Signals) -> None:
    with programs.aggregator(tmp_path, mosquitto.url) as run:
        wait_until(lambda: "run " in run.err, 30, "the run")
        time.sleep(0.3)
        run.send(number)
        assert run.wait(30) == 130, run.output
    assert f"interrupted by {number.name}" in run.out
    assert run.out.splitlines()[-1] == f"resume with: fl-aggregator start --resume {tmp_path / 'run'}"
    assert leftovers(tmp_path / "run") == []


def test_in_a_round_and_then_it_goes_on(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """What the last line says can be typed as it is, and does not begin again."""
    with programs.edges(tmp_path / "edges", mosquitto.url, "0-2", "--task", "synthetic-50"):
        with programs.aggregator(tmp_path, mosquitto.url, *TINY) as run:
            in_a_round(run, 3)
            run.send(signal.SIGINT)
            assert run.wait(30) == 130, run.output
        assert leftovers(tmp_path / "run") == []
        program, *arguments = run.out.splitlines()[-1].removeprefix("resume with: ").split()
        before = [line["round"] for line in programs.history(tmp_path)]
        with programs.Program(tmp_path / "again", program, *arguments) as again:
            wait_until(lambda: len(programs.history(tmp_path)) > len(before) + 1, 40, "more rounds")
            again.send(signal.SIGTERM)
            assert again.wait(30) == 130, again.output
    rounds = [line["round"] for line in programs.history(tmp_path)]
    assert rounds == list(range(1, len(rounds) + 1))


@pytest.mark.parametrize("number", BOTH)
def test_twice_is_at_once(tmp_path: Path, mosquitto: Mosquitto, number: signal.Signals) -> None:
    """The broker is frozen: a last message would take seconds, and no keepalive ends the wait for it.

    Only an aggregator whose birth is published has a last message; without a birth, once is at once, too.
    """
    with (
        Client(mosquitto.endpoint, "fl/aggregator") as watcher,
        programs.aggregator(tmp_path, mosquitto.url, "--keepalive", "60") as run,
    ):
        watcher.expect(m.AggregatorPresence, 30, state="online")
        mosquitto.freeze()
        try:
            run.send(number)
            journal = tmp_path / "run" / "journal.jsonl"
            wait_until(lambda: "StopRequested" in journal.read_text(), 30, "the stop is recorded")
            assert run.running(), "once is in order, which takes as long as it takes"
            run.send(number)
            assert run.wait(30) == 130, run.output
        finally:
            mosquitto.thaw()
    assert "Traceback" not in run.err
    assert not run.out, "that would be in order"
    with programs.resumed(tmp_path) as again:
        wait_until(lambda: "run " in again.err, 30, "the run, whose lock nobody holds")
        again.send(signal.SIGINT)
        assert again.wait(30) == 130, again.output


# --- simulate and its children --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGINT], 130),
        # Also tested with a run of synthetic weights, `test_all_children_end_with_it`.
        pytest.param([signal.SIGTERM], 130, marks=pytest.mark.long),
        pytest.param([signal.SIGINT, signal.SIGINT], 130, marks=pytest.mark.long),
        pytest.param([signal.SIGKILL], -signal.SIGKILL, marks=pytest.mark.long),
    ],
    ids=["SIGINT", "SIGTERM", "SIGINT twice", "SIGKILL"],
)
def test_simulate_takes_all_its_children_with_it(
    tmp_path: Path, numbers: list[signal.Signals], code: int
) -> None:
    """While its edges train, which takes them minutes; and its directory can be taken up again."""
    with programs.Program(
        tmp_path, "fl-aggregator", "simulate", "--run-dir", str(tmp_path / "run"), "--keepalive", "2", *SLOW
    ) as run:
        wait_until(lambda: "will create the initial weights" in run.err, 60, "the first weights")
        in_a_round(run)
        children = programs.descendants(run.pid)
        port = int(run.out.split("mqtt://127.0.0.1:")[1].split()[0])
        try:
            assert len(children) >= 5, "a broker, a fleet, their leashes, and workers"
            for number in numbers:
                run.send(number)
                time.sleep(0.05)
            assert run.wait(30) == code, run.output
            wait_until(lambda: not programs.alive(children), 10, f"the end of {children}")
        finally:
            programs.kill_all(children)
    assert not accepts_connect("127.0.0.1", port)
    assert "Traceback" not in run.err
    if len(numbers) == 1 and code == 130:
        assert run.out.splitlines()[-1] == f"resume with: fl-aggregator simulate --resume {tmp_path / 'run'}"
        assert leftovers(tmp_path / "run") == []


def test_simulate_while_its_broker_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mosquitto that never answers: nothing of the run exists yet, and nothing stays."""
    sleeper = tmp_path / "mosquitto"
    sleeper.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    sleeper.chmod(0o755)
    monkeypatch.setenv("FL_MOSQUITTO", str(sleeper))
    with programs.simulate(tmp_path) as run:
        wait_until(lambda: len(programs.descendants(run.pid)) >= 2, 30, "the broker's process")
        children = programs.descendants(run.pid)
        run.send(signal.SIGTERM)
        try:
            assert run.wait(30) == 130, run.output
            wait_until(lambda: not programs.alive(children), 10, f"the end of {children}")
        finally:
            programs.kill_all(children)
    assert run.err.strip() == "fl-aggregator: interrupted"
    assert not (tmp_path / "run").exists()


# --- an edge --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.long), signal.SIGTERM])
def test_an_edge_says_goodbye_even_while_it_trains(
    tmp_path: Path, mosquitto: Mosquitto, number: signal.Signals
) -> None:
    with (
        Client(mosquitto.endpoint, "fl/clients/+/presence") as presence,
        programs.aggregator(tmp_path, mosquitto.url, *SLOW) as run,
        programs.edges(tmp_path / "edges", mosquitto.url, "0-2") as fleet,
    ):
        in_a_round(run)
        time.sleep(1.0)
        workers = programs.descendants(fleet.pid)
        assert workers
        fleet.send(number)
        assert fleet.wait(30) == 130, fleet.output
        wait_until(lambda: not programs.alive(workers), 30, "the end of its workers")
        wait_until(lambda: "edge 2 is offline, left: it was stopped" in run.err, 30, "its message of leaving")
        last = {one.topic: json.loads(one.payload)["state"] for one in presence.received}
    assert last == {f"fl/clients/{n}/presence": "offline" for n in range(3)}
    assert "Traceback" not in fleet.err


@pytest.mark.parametrize("number", BOTH)
def test_an_edge_without_a_broker(tmp_path: Path, number: signal.Signals) -> None:
    """It keeps trying, as a device should that is switched on before its network is; until somebody ends it."""
    with programs.edges(tmp_path, "mqtt://127.0.0.1:1", "0", "--task", "synthetic-50") as edge:
        wait_until(lambda: "nothing listens on port 1" in edge.err, 30, "its first attempt")
        assert edge.running()
        edge.send(number)
        assert edge.wait(30) == 130, edge.output
    assert "Traceback" not in edge.err
