"""Mistakes that show when a program runs: the address, a run directory, edges that do not fit."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fl_shared.protocol import messages as m
from fl_shared.tensors.manifest import ArraySpec, Manifest
from tests.support import programs
from tests.support.broker import Mosquitto, refused_subscriptions
from tests.support.client import Client
from tests.support.command_line import (
    TINY,
    everything,
    is_one_clear_line,
    run,
)
from tests.support.simulated_edges import SimulatedEdges
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

MANIFEST = Manifest(arrays=(ArraySpec(name="w", shape=(5,)),))


def start_at(here: Path, url: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ("fl-aggregator", "start", "--broker", url, "--run-dir", str(here / "run"), *arguments)
    return run(here, command, environment)


def test_connection_refused_is_said(here: Path) -> None:
    is_one_clear_line(start_at(here, "mqtt://127.0.0.1:1"), "nothing listens on port 1 of 127.0.0.1")


@pytest.mark.parametrize(
    ("sends", "says"),
    [
        (None, "did not answer within 5 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "closed the connection without an answer"),
    ],
)
def test_a_port_that_speaks_no_mqtt(here: Path, sends: bytes | None, says: str) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        if sends is not None:
            code = (
                "import socket, sys\nlistener = socket.socket(fileno=int(sys.argv[1]))\n"
                "while True:\n    peer, _ = listener.accept()\n    peer.recv(999)\n"
                f"    peer.sendall({sends!r})\n    peer.close()\n"
            )
            server = subprocess.Popen(
                ["python3", "-c", code, str(listener.fileno())], pass_fds=[listener.fileno()]
            )
            stack.callback(server.wait)
            stack.callback(server.kill)
        done = start_at(here, f"mqtt://127.0.0.1:{listener.getsockname()[1]}")
    is_one_clear_line(done, says)
    assert not (here / "run").exists()


def test_a_host_that_drops_what_is_sent_to_it(here: Path) -> None:
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # whoever comes after the queue is full hears nothing
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(full.getsockname())
        done = start_at(here, f"mqtt://127.0.0.1:{full.getsockname()[1]}")
    is_one_clear_line(done, "did not answer on port")
    assert not (here / "run").exists()


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker with the account ``aggregator``, password ``right``."""
    directory = tmp_path / "accounts"
    directory.mkdir()
    passwords = directory / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "aggregator", "right"], check=True)
    broker = Mosquitto(directory, extra=[f"password_file {passwords}"], allow_anonymous=False)
    yield broker
    broker.stop()


def test_a_wrong_password(here: Path, accounts: Mosquitto) -> None:
    url = f"mqtt://aggregator@127.0.0.1:{accounts.port}"
    for address, environment in (
        (url, {"FL_PASSWORD": "wrong"}),
        (url, {}),
        (accounts.url, {}),
    ):
        is_one_clear_line(start_at(here, address, **environment), "Not authorized", "FL_PASSWORD")
    done = run(here, ("fl-edge", "--id", "1", "--broker", url), {"FL_PASSWORD": "wrong"})
    is_one_clear_line(done, "Not authorized", "FL_PASSWORD")
    assert not (here / "run").exists()
    assert start_at(here, url, "--wait", "0.2", FL_PASSWORD="right").returncode == 1


NOT_ALLOWED = (
    "rivals/status",
    "updates/updates/#",
    "edge/replies/7",
    "more/clients/7/log-request",
    "more/predict/7",
)
"""Topic filters under prefixes of their own."""


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker with the account ``limited``, password ``right``, which may not subscribe to `NOT_ALLOWED`."""
    directory = tmp_path / "limited"
    directory.mkdir()
    rights = refused_subscriptions(directory, "limited", "right", NOT_ALLOWED)
    broker = Mosquitto(directory, extra=rights, allow_anonymous=False)
    yield broker
    broker.stop()


def test_an_account_that_may_not_subscribe(
    here: Path, limited: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a program needs ends it, with topic and account in its line. Without the rest an edge takes part."""
    monkeypatch.setenv("FL_PASSWORD", "right")
    url, account = f"mqtt://limited@127.0.0.1:{limited.port}", "check the rights of user limited"
    password = {"FL_PASSWORD": "right"}
    done = start_at(here, url, "--prefix", "rivals", **password)
    is_one_clear_line(done, f"does not allow the aggregator to read rivals/status (0x87): {account}")
    assert not (here / "run").exists()
    done = start_at(here, url, "--prefix", "updates", **password)
    is_one_clear_line(done, f"does not allow the aggregator to read updates/updates/# (0x87): {account}")
    done = run(here, ("fl-aggregator", "status", "--broker", url, "--prefix", "rivals"), password)
    is_one_clear_line(done, "does not allow this account to read rivals/status: check its rights")
    done = run(here, ("fl-edge", "--id", "7", "--broker", url, "--prefix", "edge"), password)
    is_one_clear_line(done, f"does not allow this edge to subscribe to edge/replies/7 (0x87): {account}")

    more, roles = ("--prefix", "more"), ("--role", "train", "--role", "predict")
    with (
        programs.edges(here / "edge", url, "7", *more, *roles, "--task", "synthetic-50") as edge,
        programs.aggregator(here / "more", url, *more, *TINY) as ours,
    ):
        ours.ends_well()
        for says in (
            f"does not allow this edge to read more/clients/7/log-request (0x87), continuing without: {account}",
            "answers no prediction requests: the broker does not allow reading more/predict/7: ",
        ):
            wait_for_line(edge, says)
        assert edge.running()


def test_a_directory_that_holds_a_run(here: Path, shared_mosquitto: Mosquitto) -> None:
    prefix = ("--prefix", "mistakes/directory")
    failed = start_at(here, shared_mosquitto.url, *prefix, "--wait", "0.2")
    assert failed.returncode == 1
    before = everything(here / "run")
    again = start_at(here, shared_mosquitto.url, *prefix)
    is_one_clear_line(again, "already contains a run", f"--resume {here / 'run'}")
    simulated = run(here, ("fl-aggregator", "simulate", "--resume", str(here / "run")), {})
    is_one_clear_line(simulated, f"fl-aggregator start --resume {here / 'run'}")
    assert everything(here / "run") == before


def test_resuming_what_is_open_or_finished(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/resume")
    command = ("fl-aggregator", "start", "--resume", str(tmp_path / "run"))
    (tmp_path / "empty").mkdir()
    with programs.aggregator(tmp_path, url, *prefix, *TINY) as first:
        wait_until((tmp_path / "run" / "run.json").exists, 20, "the run")
        is_one_clear_line(run(tmp_path, command, {}), "in use by another aggregator")
        with programs.edges(tmp_path / "edge", url, "0", *prefix, "--task", "synthetic-50"):
            first.ends_well()
    before = everything(tmp_path / "run")
    is_one_clear_line(
        run(tmp_path, command, {}), "is finished (1 of 1 versions)", f"serve {tmp_path / 'run'}"
    )
    assert everything(tmp_path / "run") == before


def test_another_run_is_online(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    """The one that is refused says nothing on the topics of the one that is there."""
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/online")
    (tmp_path / "empty").mkdir()
    with programs.aggregator(tmp_path / "one", url, *prefix, "--wait", "60") as first:
        with Client(shared_mosquitto.endpoint, "mistakes/online/aggregator") as seen:
            seen.wait_for(lambda one: one.topic == "mistakes/online/aggregator", "the first one's birth")
            done = start_at(tmp_path, url, *prefix)
            states = [json.loads(one.payload)["state"] for one in seen.received]
        is_one_clear_line(done, "is online under the prefix 'mistakes/online'", "--prefix")
        assert states == ["online"]
        assert first.running()
    assert not (tmp_path / "run").exists()


def test_a_task_that_no_edge_has(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    """The edges say why they do not take part, and stay for the next run; the aggregator waits for others."""
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/task")
    mistyped = ("--task", "synthetic-5o", "--clients", "3", "--per-round", "2", "--wait", "8")
    with (
        programs.edges(tmp_path / "a", url, "a", *prefix, "--task", "synthetic-50") as a,
        programs.edges(tmp_path / "b", url, "b", *prefix) as b,
    ):
        with programs.aggregator(tmp_path / "mistyped", url, *prefix, *mistyped) as ours:
            other_task = "the task is 'synthetic-50', but this run's is 'synthetic-5o'"
            no_task = "no task 'synthetic-5o' here; it has: digits, mnist"
            for client, why in (("a", other_task), ("b", no_task)):
                wait_for_line(ours, f"edge {client} does not take part: {why}")
            status = wait_until(
                lambda: text if "(does not" in (text := _status(tmp_path, url, prefix)) else None,
                20,
                "the status",
            )
            assert f"a (does not take part: {other_task})" in status
            assert f"b (does not take part: {no_task}" in status
            assert ours.wait(60) == 1
        (failure,) = (line for line in ours.out.splitlines() if line.startswith("failed"))
        assert f"a ({other_task})" in failure
        assert a.running()
        assert b.running()
        right = (*TINY, "--task", "synthetic-50", "--clients", "2", "--per-round", "2")
        with programs.aggregator(tmp_path / "right", url, *prefix, *right) as ours:
            ours.ends_well()


def test_an_edge_of_another_version(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    """Who watches the run sees why it does not take part, until it is gone; another edge may have its id."""
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/version")
    why = f"does not take part: protocol version 1, expected {m.PROTOCOL_VERSION}: install the version of fl-mqtt"
    with (
        Client(shared_mosquitto.endpoint, "mistakes/version/#", prefix="mistakes/version") as wire,
        programs.aggregator(tmp_path, url, *prefix, *TINY, "--clients", "2") as ours,
    ):
        wire.expect(m.AggregatorPresence, 30, state="online")
        old = {"v": 1, "client": "0", "session": "old"}
        for _ in range(2):  # a registration is repeated until it is answered
            wire.send("mistakes/version/register/0", json.dumps(old | {"kind": "register"}).encode())
            assert wire.expect(m.Refused, 20, client="0", session="old").reason == "wrong-version"
        wait_for_line(ours, f"edge 0 {why}")
        wait_until(lambda: f"0 ({why}" in _status(tmp_path, url, prefix), 20, "the status")
        gone = json.dumps(old | {"kind": "presence", "state": "offline"}).encode()
        wire.send("mistakes/version/clients/0/presence", gone)
        wait_for_line(ours, "edge 0 is offline")
        wire.send("mistakes/version/register/0", json.dumps(old | {"kind": "register"}).encode())
        with programs.edges(tmp_path / "edge", url, "0,1", *prefix, "--task", "synthetic-50"):
            ours.ends_well()
    assert ours.err.count("does not take part") == 2, "once for each time that it came"


def wait_for_line(program: programs.Program, line: str) -> None:
    wait_until(lambda: line in program.err, 40, line)


def _status(directory: Path, url: str, prefix: tuple[str, ...]) -> str:
    return run(directory, ("fl-aggregator", "status", "--broker", url, *prefix), {}).stdout


def test_edges_without_the_data(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/data")
    (tmp_path / "empty").mkdir()
    edge = ("0", *prefix, "--data", str(tmp_path / "empty"))
    task = ("--task", "mnist", "--clients", "2", "--per-round", "1")
    with (
        programs.aggregator(tmp_path / "run", url, *prefix, *task) as ours,
        programs.edges(tmp_path / "edge", url, *edge) as fleet,
    ):
        wait_until(lambda: "edge 0 does not take part: " in ours.err, 60, "the aggregator is told")
        wait_for_line(ours, "all edges that have registered decline: 0 (mnist: the data set was not found in")
        (said,) = (line for line in fleet.err.splitlines() if "waiting for another run" in line)
        assert "train-images-idx3-ubyte.gz" in said
        assert str(tmp_path / "empty") in said
        assert fleet.running()


def test_an_id_that_another_device_uses(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/id")
    mine = (*prefix, "--task", "synthetic-50")
    with (
        programs.aggregator(tmp_path, url, *prefix, *TINY, "--clients", "2", "--wait", "60"),
        programs.edges(tmp_path / "first", url, "0", *mine) as first,
    ):
        wait_until(lambda: "registered for run" in first.err, 30, "the first device")
        with programs.edges(tmp_path / "second", url, "0", *mine) as second:
            assert second.wait(30) == 2, second.output
        assert "in use by another device" in second.err
        assert first.running()


def test_a_target_that_nobody_measures(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    """It is said at the start, since an evaluator may come yet; without one the run ends with its rounds."""
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/target")
    with (
        programs.edges(tmp_path / "edge", url, "0", *prefix, "--task", "synthetic-50"),
        programs.aggregator(tmp_path, url, *prefix, *TINY, "--target", "loss=0.5") as ours,
    ):
        ours.ends_well()
    assert "only edges with --role evaluate measure" in ours.err
    assert "finished: 1 of 1 versions" in ours.out


def test_waiting_says_for_whom_and_how_long_and_ends(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/wait")
    several = ("--clients", "5", "--per-round", "3", "--quorum", "3", "--wait", "8")
    with programs.edges(tmp_path / "edges", url, "0,3", *prefix, "--task", "synthetic-50") as fleet:
        wait_until(lambda: "connected to" in fleet.err, 60, "the edges are there")
        with programs.aggregator(tmp_path, url, *prefix, *TINY, *several) as ours:
            assert ours.wait(60) == 1, ours.output
        assert fleet.running()
    said = [line for line in ours.err.splitlines() if "waiting for edges" in line]
    assert any("2 of 5 ready; missing: 1-2, 4; " in line and "s left (--wait)" in line for line in said), said
    assert 1 <= len(said) <= 4, said
    (failure,) = (line for line in ours.out.splitlines() if line.startswith("failed"))
    assert "2 of at least 3 edges were ready after 8 s (--wait)" in failure
    assert "no edge for partition: 1, 2, 4" in failure


def test_waiting_for_edges_with_names_says_how_many_are_missing(
    tmp_path: Path, mosquitto: Mosquitto, stack: contextlib.ExitStack
) -> None:
    """The aggregator knows how many there will be (`--clients`), but not their names."""
    edges = stack.enter_context(SimulatedEdges(mosquitto.endpoint, MANIFEST))
    several = ("--clients", "5", "--per-round", "3", "--quorum", "3", "--wait", "5")
    ours = stack.enter_context(programs.aggregator(tmp_path, mosquitto.url, *several))
    edges.expect(m.AggregatorPresence, state="online")
    edges.join({"cam1": 10, "cam2": 10})  # they get their data after these 5 s
    assert ours.wait(60) == 1, ours.output
    here = "get their data when the run starts: cam1, cam2"
    assert f"waiting for edges: 0 of 5 ready; {here}; missing: 3 more; " in ours.err
    (failure,) = (line for line in ours.out.splitlines() if line.startswith("failed"))
    assert "2 of at least 3 edges were ready after 5 s (--wait); no edge for partition: 2, 3, 4" in failure


def test_first_weights_that_the_edges_do_not_have(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    """The file says its roles, so nobody needs an edge to take it up. The edge names the first array that differs."""
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/init")
    ours_says, file = {"task": "digits-mlp", "buffers": "[]"}, tmp_path / "first.safetensors"
    save_file({"0.bias": np.zeros(3, np.float32)}, file, metadata=ours_says)
    task = ("--task", "digits-mlp", "--clients", "1", "--per-round", "1", "--init", str(file))
    with (
        programs.aggregator(tmp_path, url, *prefix, *task) as ours,
        programs.edges(tmp_path / "edge", url, "0", *prefix, "--light") as edge,
    ):
        for program in (edge, ours):
            wait_for_line(
                program, "this edge's model: array '0.bias' is a parameter of the shape [3], expected "
            )
        assert edge.running(), "the mistake is the aggregator's"
