"""``fl-aggregator stop``: a run ends from afar, as by Ctrl-C, and can be taken up again (protocol, 8.5)."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.simulated_aggregator import retain_birth
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

LONG = (
    "--task",
    "synthetic-50",
    "--clients",
    "2",
    "--per-round",
    "2",
    "--rounds",
    "100000",
    "--holdout",
    "0",
)


def stop(place: Path, broker: Mosquitto, prefix: str, *arguments: str) -> programs.Program:
    common = ("--broker", broker.url, "--prefix", prefix)
    return programs.Program(place / "stop", "fl-aggregator", "stop", *common, *arguments)


def record(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / "run" / "run.json").read_text())
    return found


def begun(place: Path) -> Callable[[], bool]:
    return (place / "run" / "run.json").exists


def test_a_run_is_stopped_and_taken_up_again(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    url, prefix = shared_mosquitto.url, "stop/run"
    with programs.edges(tmp_path / "edges", url, "0-1", "--prefix", prefix, "--task", "synthetic-50"):
        with (
            Client(shared_mosquitto.endpoint, f"{prefix}/control") as control,
            programs.aggregator(tmp_path, url, "--prefix", prefix, *LONG) as run,
        ):
            wait_until(lambda: "round 2: version" in run.err, 30, "two rounds")
            with stop(tmp_path, shared_mosquitto, prefix, "--run", "another") as stopped:
                assert stopped.wait(30) == 2, stopped.output
            assert f"--run another: the run that is online under the prefix '{prefix}'" in stopped.err
            assert stopped.err.rstrip().endswith(f"is {record(tmp_path)['run']}")
            assert run.running()
            with stop(tmp_path, shared_mosquitto, prefix, "--reason", "the site closes") as stopped:
                assert stopped.wait(30) == 0, stopped.output
            assert "interrupted" in stopped.out
            # Its directory is free at once: whoever has waited for the stop may go on.
            assert run.wait(30) == 130, run.output
            said = [json.loads(one.payload) for one in control.received]
        ours = record(tmp_path)["run"]
        assert said[0] == {
            "v": 2,
            "kind": "stop",
            "run": ours,
            "incarnation": 1,
            "reason": "the site closes",
        }
        assert "stopped by the operator: the site closes" in run.out
        assert run.out.splitlines()[-1] == f"resume with: fl-aggregator start --resume {tmp_path / 'run'}"
        assert not (tmp_path / "run" / ".lock").exists()

        rounds = len(programs.history(tmp_path))
        with programs.resumed(tmp_path) as again:
            wait_until(lambda: len(programs.history(tmp_path)) > rounds + 1, 40, "more rounds")
            assert record(tmp_path)["run"] == ours
            with stop(tmp_path, shared_mosquitto, prefix, "--run", ours) as stopped:
                assert stopped.wait(30) == 0, stopped.output
            assert again.wait(30) == 130, again.output
    with stop(tmp_path, shared_mosquitto, prefix) as stopped:
        assert stopped.wait(30) == 2, stopped.output
    assert f"no run is online under the prefix '{prefix}'" in stopped.err
    assert f"{ours}, is offline" in stopped.err


def test_what_is_not_obeyed(tmp_path: Path, shared_mosquitto: Mosquitto, stack: ExitStack) -> None:
    """Another run's, one that lay there before, one that was published to stay, and nonsense."""
    prefix = "stop/disobeyed"
    operator = stack.enter_context(Client(shared_mosquitto.endpoint))

    def say(run: str, *, retain: bool = False, **more: object) -> None:
        order = {"v": 2, "kind": "stop", "run": run, "reason": "", **more}
        assert operator.publish(f"{prefix}/control", json.dumps(order).encode(), retain=retain) < 0x80

    say("ghost", retain=True)
    with programs.aggregator(tmp_path, shared_mosquitto.url, "--prefix", prefix, "--wait", "60") as run:
        wait_until(begun(tmp_path), 20, "the run")
        ours = record(tmp_path)["run"]
        say("another")
        say(ours, retain=True)
        say(ours, kind="start")
        say(ours, v=1)
        say(ours, reason="x" * 201)
        say(ours, reason="\x1b[2J")
        time.sleep(1.0)
        assert run.running(), run.output
        with Client(shared_mosquitto.endpoint, f"{prefix}/control") as later:
            later.catch_up()
        assert not later.retained, "what was to stay is cleared"
        # And any MQTT client may say what is obeyed.
        order = json.dumps({"v": 2, "kind": "stop", "run": ours})
        plain = ("mosquitto_pub", "-p", str(shared_mosquitto.port), "-t", f"{prefix}/control", "-m", order)
        subprocess.run(plain, check=True)
        assert run.wait(10) == 130, run.output
    assert "stopped by the operator\n" in run.out


def test_an_aggregator_that_does_not_answer(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    """Its word is repeated, and after the timeout it is said which run it was."""
    prefix = "stop/ghost"
    retain_birth(shared_mosquitto.endpoint, prefix)
    with (
        Client(shared_mosquitto.endpoint, f"{prefix}/control") as control,
        stop(tmp_path, shared_mosquitto, prefix, "--timeout", "5") as stopped,
    ):
        assert stopped.wait(30) == 1, stopped.output
        assert len(control.received) == 3
    assert "run ghost has not stopped within 5 s" in stopped.err
    assert f"{prefix}/control" in stopped.err
    clear = ("mosquitto_pub", "-p", str(shared_mosquitto.port), "-r", "-n", "-t", f"{prefix}/aggregator")
    subprocess.run(clear, check=True)


def test_an_aggregator_that_dies_meanwhile(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Without a last status: it is gone when it is not back in time."""
    with programs.aggregator(tmp_path, mosquitto.url, "--wait", "60") as run:
        with Client(mosquitto.endpoint, "fl/status") as statuses:
            wait_until(lambda: statuses.received, 20, "its first status")
        run.send(signal.SIGSTOP)
        with stop(tmp_path, mosquitto, "fl", "--timeout", "40") as stopped:
            with Client(mosquitto.endpoint, "fl/control") as control:
                wait_until(lambda: control.received, 20, "the first word")
            run.send(signal.SIGKILL)
            assert stopped.wait(30) == 0, stopped.output
    assert "is offline and did not report the end (last status: selecting" in stopped.out
