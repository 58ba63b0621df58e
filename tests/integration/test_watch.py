"""``fl-aggregator status`` and ``watch``: on real brokers and runs, and when something is not there."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.limits import MAX_STATUS_AGE
from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.builders import session_of
from tests.support.ports import free_port
from tests.support.programs import Program
from tests.support.schemas import checked
from tests.support.simulated_edges import SimulatedEdges
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(480)]

MANIFEST = Manifest(arrays=(ArraySpec(name="w", shape=(5,)),))
SETTINGS = (
    "--holdout", "0", "--wait", "30", "--clients", "3", "--per-round", "3", "--quorum", "1", "--rounds", "3",
    "--grace", "0", "--deadline", "60",
)  # fmt: skip


def status(broker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return programs.run("fl-aggregator", "status", "--broker", broker, *arguments)


def status_and_check(broker: str) -> Iterator[subprocess.CompletedProcess[str]]:
    """`status` without and with ``--check``, at the same time."""
    with ThreadPoolExecutor() as pool:
        return pool.map(lambda more: status(broker, *more), ((), ("--check",)))


def watch(directory: Path, broker: str, *arguments: str) -> Program:
    return Program(directory, "fl-aggregator", "watch", "--broker", broker, "--keepalive", "2", *arguments)


def looked(broker: str) -> dict[str, Any]:
    done = status(broker, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = checked("fl-aggregator status", done.stdout)
    return found


def fail(edges: SimulatedEdges, client: str, number: int, detail: str) -> None:
    said = m.TrainingFailed(
        **edges.envelope(), client=client, session=session_of(client), round=number, detail=detail
    )
    edges.send(t.UpdatesTopic(client), said)


@pytest.mark.parametrize("command", ["status", "watch"])
def test_nothing_is_there(mosquitto: Mosquitto, command: str) -> None:
    done = programs.run("fl-aggregator", command, "--broker", mosquitto.url, "--wait", "1", "--prefix", "a/b")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"fl-aggregator: no run under the prefix 'a/b' at {mosquitto.url}: no status arrived within"
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("status",), 2), (("status", "--check"), 1), (("watch",), 2), (("watch", "--json"), 2)],
)
def test_no_broker(arguments: tuple[str, ...], code: int) -> None:
    url = f"mqtt://127.0.0.1:{free_port()}"
    done = programs.run("fl-aggregator", *arguments, "--broker", url)
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert url in line
    assert "connection refused" in line


def test_a_run_whose_broker_and_aggregator_die_and_come_back(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    """`watch` goes on through all of it; `status` says since when the aggregator is gone, and what can be done."""
    edges = stack.enter_context(SimulatedEdges(mosquitto.endpoint, MANIFEST))
    run = stack.enter_context(programs.aggregator(tmp_path, mosquitto.url, *SETTINGS))
    edges.expect(m.AggregatorPresence, state="online")
    plain = stack.enter_context(watch(tmp_path / "plain", mosquitto.url))
    as_json = stack.enter_context(watch(tmp_path / "json", mosquitto.url, "--json"))
    edges.register("a")
    wait_until(lambda: "0 of 3 ready" in plain.out, 20, "for whom it waits")
    edges.join(dict.fromkeys("abc", 10))
    zero = edges.expect(m.Selected, round=0)
    assert zero.cohort is not None
    edges.contribute(zero.cohort[0], zero)
    one = edges.expect(m.Selected, round=1)
    edges.contribute("a", one)
    fail(edges, "b", 1, "no \x1b[31mmemory\nat all")
    wait_until(lambda: looked(mosquitto.url)["edges"] == {"in": 1, "missing": 1, "training": 1}, 10, "edges")
    found = looked(mosquitto.url)
    assert (found["aggregator"], found["alive"]) == ("online", True)
    assert found["age"] < MAX_STATUS_AGE
    assert found["status"]["phase"] == "collecting"
    assert found["every_edge"]["b"]["state"] == "missing"
    assert found["last"] is None
    text, well = status_and_check(mosquitto.url)
    assert text.returncode == 0
    assert "round 1: collecting, 1 of 3 in, 1 missing: b (failed: no  [31mmemory at all)" in text.stdout
    assert "\x1b" not in text.stdout
    assert (well.returncode, well.stdout, well.stderr) == (0, "", "")
    edges.contribute("c", one)
    wait_until(lambda: "round 1: version 1 of 3, 2 of 3 in" in plain.out, 20, "a line for the round")

    mosquitto.stop()
    wait_until(lambda: "no broker for" in plain.out, 20, "that the broker is gone")
    mosquitto.start()
    wait_until(lambda: "broker and aggregator are back" in plain.out, 30, "that it is back")
    wait_until(lambda: not edges.lost, 10, "the edges are connected")

    run.send(signal.SIGKILL)
    run.wait()
    wait_until(lambda: "the aggregator is offline" in plain.out, 20, "that the aggregator is gone")
    dead, unwell = status_and_check(mosquitto.url)
    assert dead.returncode == 0
    assert "version 1 of 3" in dead.stdout
    assert dead.stdout.startswith("the aggregator is offline, its last status was at 20")
    assert " left" not in dead.stdout, "nobody knows when it goes on"
    assert "fl-aggregator start --resume DIR" in dead.stdout
    assert unwell.returncode == 1
    assert "is offline" in unwell.stderr

    again = stack.enter_context(programs.resumed(tmp_path))
    anew = stack.enter_context(SimulatedEdges(mosquitto.endpoint, MANIFEST))
    anew.expect(m.AggregatorPresence, state="online", incarnation=2)
    anew.join(dict.fromkeys("abc", 10))
    for number in (2, 3):
        selected = anew.expect(m.Selected, round=number)
        for client in selected.cohort or ():
            anew.contribute(client, selected)
    again.ends_well()
    plain.ends_well(20)
    as_json.ends_well(20)
    assert "round 3: version 3 of 3, " in plain.out
    assert plain.out.count("round 2: version 2 of 3") == 1
    assert plain.err == ""
    lines = [checked("fl-aggregator watch", line) for line in as_json.out.splitlines()]
    assert [line["round"]["round"] for line in lines if "round" in line] == [1, 2, 3]
    assert lines[-1]["status"]["phase"] == "finished"
    assert lines[-1]["history"]["round"] == [1, 2, 3]
    assert {"offline", "online"} == {line["aggregator"] for line in lines if "aggregator" in line}
    over = status(mosquitto.url)
    assert over.returncode == 0
    assert "finished" in over.stdout
    assert "offline" not in over.stdout.replace("offline:", ""), "a run that is over is not missed"
    late = programs.run("fl-aggregator", "watch", "--broker", mosquitto.url)
    assert (late.returncode, late.stdout, late.stderr) == (0, over.stdout, ""), (
        "what there is to say, and once"
    )


def test_an_aggregator_that_hangs_is_told_from_clocks_that_differ(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    """A birth without a will and a status of long ago: perhaps a wrong clock, so a sign of life is waited for."""
    edges = stack.enter_context(SimulatedEdges(mosquitto.endpoint, MANIFEST))
    born = m.AggregatorPresence(state="online", session="s", run="r", incarnation=1)
    old = m.Status(
        run="r", incarnation=1, seq=1, written="2020-01-01T00:00:00Z", task="digits", phase="collecting", round=1,
        version=0, rounds=3, have=0, need=3, present=3, seconds_left=9.0, missing=(), metrics={},
    )  # fmt: skip
    edges.publish(t.AggregatorTopic(), born, retain=True)
    edges.publish(t.StatusTopic(), old, retain=True)
    done = status(mosquitto.url, "--check")
    assert done.returncode == 1
    assert "its last status is from 2020-01-01T00:00:00Z" in done.stderr
    with ExitStack() as stack:
        looking = stack.enter_context(
            Program(tmp_path / "look", "fl-aggregator", "status", "--check", "--broker", mosquitto.url)
        )
        while looking.running():
            edges.send(t.StatusTopic(), old, retain=True)  # live, and only its clock is wrong
            time.sleep(0.5)
        assert looking.wait() == 0, looking.output


def test_watch_ends_with_the_code_of_a_run_that_was_stopped_and_with_130_at_ctrl_c(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack
) -> None:
    edges = stack.enter_context(SimulatedEdges(mosquitto.endpoint, MANIFEST))
    run = stack.enter_context(programs.aggregator(tmp_path, mosquitto.url, *SETTINGS))
    edges.expect(m.AggregatorPresence, state="online")
    stopped = stack.enter_context(watch(tmp_path / "stopped", mosquitto.url))
    left = stack.enter_context(watch(tmp_path / "left", mosquitto.url))
    wait_until(lambda: "version 0 of 3" in left.out and "version 0 of 3" in stopped.out, 20, "a first look")
    left.send(signal.SIGINT)
    assert left.wait(10) == 130
    assert left.err.split("\n")[-2:] == ["fl-aggregator: interrupted", ""]
    run.send(signal.SIGINT)
    assert run.wait(20) == 130
    assert stopped.wait(20) == 130
    assert "interrupted" in stopped.out


def test_on_a_terminal_it_is_drawn(tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack) -> None:
    edges = stack.enter_context(SimulatedEdges(mosquitto.endpoint, MANIFEST))
    stack.enter_context(programs.aggregator(tmp_path, mosquitto.url, *SETTINGS))
    edges.expect(m.AggregatorPresence, state="online")
    edges.join(dict.fromkeys("abc", 10))
    zero = edges.expect(m.Selected, round=0)
    assert zero.cohort is not None
    edges.contribute(zero.cohort[0], zero)
    one = edges.expect(m.Selected, round=1)
    fail(edges, "b", 1, "no memory")
    edges.contribute("a", one)
    edges.contribute("c", one)
    edges.expect(m.Selected, round=2)
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [str(programs.BIN / "fl-aggregator"), "watch", "--broker", mosquitto.url],
        stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"},
    )  # fmt: skip
    os.close(follower)
    stack.callback(process.wait)
    stack.callback(process.kill)
    shown = b""
    deadline = time.monotonic() + 60
    while b"2/3" not in shown or b"0 of 3 in" not in shown or b"1 of 3" not in shown:
        assert time.monotonic() < deadline, shown[-3000:].decode(errors="replace")
        if select.select([leader], [], [], 0.5)[0]:
            shown += os.read(leader, 65_536)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    os.set_blocking(leader, False)
    try:
        while more := os.read(leader, 65_536):
            shown += more
    except OSError:
        pass
    os.close(leader)
    assert b"b (failed)" in shown
    assert b"\x1b[?25h" in shown, "the cursor is back"


@pytest.mark.edge
def test_the_command_that_simulate_prints_follows_it(tmp_path: Path) -> None:
    """The one worker is stopped until somebody watches, so that the run cannot be over before."""
    with programs.simulate(
        tmp_path, "--task", "synthetic-50", "--clients", "3", "--per-round", "2", "--rounds", "3",
        "--workers", "1", "--prefix", "lab/x",
    ) as run:  # fmt: skip
        worker = wait_until(lambda: programs.workers_of_simulation(run), 40, "a worker")
        programs.freeze(*worker)
        command = wait_until(
            lambda: [line for line in run.out.splitlines() if line.startswith("watch it: ")],
            40,
            "the command",
        )[0].removeprefix("watch it: ")
        program, *arguments = command.split()
        with Program(tmp_path / "watch", program, *arguments, "--wait", "60") as seen:
            wait_until(lambda: seen.out, 40, "what it sees")
            programs.thaw(*worker)
            run.ends_well()
            seen.ends_well(20)
    assert "version 3 of 3" in seen.out
    edges, machines = seen.out.splitlines()[-2:]
    assert edges.startswith("edges: ")
    assert machines.startswith("the edges run on ")
    assert "loss 0." in seen.out


@pytest.mark.parametrize("how", ["quiet", "json"])
def test_what_start_says_off_a_terminal(
    tmp_path: Path, mosquitto: Mosquitto, stack: ExitStack, how: str
) -> None:
    """`--quiet`: how it ended, in one line. `--log-format json`: each line of the log is an object."""
    edges = stack.enter_context(SimulatedEdges(mosquitto.endpoint, MANIFEST))
    option = ("--quiet",) if how == "quiet" else ("--log-format", "json")
    run = stack.enter_context(
        programs.aggregator(tmp_path, mosquitto.url, *SETTINGS, "--rounds", "1", "--no-tensorboard", *option)
    )
    edges.expect(m.AggregatorPresence, state="online")
    edges.join(dict.fromkeys("abc", 10))
    for number in (0, 1):
        selected = edges.expect(m.Selected, round=number)
        for client in selected.cohort or ():
            edges.contribute(client, selected)
    run.ends_well(20)
    if how == "quiet":
        (line,) = run.out.splitlines()
        assert line.startswith("finished: 1 of 1 versions in ")
        assert run.err == ""
        return
    lines = [json.loads(line) for line in run.err.splitlines()]
    assert [line["round"]["participants"] for line in lines if "round" in line] == [3]
    assert any(line["message"].startswith("watch it: fl-aggregator watch --broker mqtt://") for line in lines)
    said = run.out.splitlines()
    assert said[0].split() == [
        "round",
        "version",
        "in",
        "accuracy",
        "loss",
        "train",
        "loss",
        "seconds",
        "up",
        "down",
    ]
    assert any(str(tmp_path / "run" / "model.safetensors") in line for line in said)
