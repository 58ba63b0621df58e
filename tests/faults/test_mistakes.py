"""What a person did wrong ends the program at once: one clear line, exit code 2, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

AT_ONCE = 15.0
"""Seconds, for a program that has all of a slow machine's imports before it."""
TINY = ("--task", "synthetic-50", "--clients", "1", "--per-round", "1", "--rounds", "1", "--holdout", "0")


@dataclass(frozen=True)
class Mistake:
    """``{BROKER}`` in an argument is the URL of a broker that is there, ``{HERE}`` the working directory."""

    arguments: tuple[str, ...]
    says: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def start(*arguments: str, says: tuple[str, ...], **environment: str) -> Mistake:
    common = ("fl-aggregator", "start", "--broker", "{BROKER}", "--run-dir", "{HERE}/run", "--wait", "1")
    return Mistake((*common, *arguments), says, environment)


def simulate(*arguments: str, says: tuple[str, ...], **environment: str) -> Mistake:
    common = ("fl-aggregator", "simulate", "--run-dir", "{HERE}/run", "--clients", "3", "--per-round", "2")
    return Mistake((*common, *arguments), says, environment)


def edge(*arguments: str, says: tuple[str, ...], **environment: str) -> Mistake:
    return Mistake(("fl-edge", *arguments), says, environment)


MISTAKES = {
    "too many per round": start("--per-round", "30", says=("--per-round: 30", "20")),
    "unknown strategy": start("--strategy", "fedmax", says=("--strategy", "'fedmax'", "fedavg")),
    "unknown partition": start("--partition", "cake", says=("--partition 'cake'", "dirichlet:ALPHA")),
    "unknown option": start("--round", "3", says=("--round", "--rounds")),
    "environment, a number": start(FL_ROUNDS="many", says=("--rounds", "'many'", "FL_ROUNDS")),
    "environment, a choice": start(FL_DURABILITY="always", says=("--durability", "process", "FL_DURABILITY")),
    "environment, our own check": start(FL_PARTITION="cake", says=("--partition 'cake'",)),
    "configuration, a number": start("--config", "{HERE}/number.toml", says=("--rounds", "'many'", "--config")),
    "configuration, a list": start("--config", "{HERE}/list.toml", says=("rounds: is a list", "one value")),
    "configuration, a name": start("--config", "{HERE}/name.toml", says=("'roundz'", "did you mean 'rounds'")),
    "first weights that are none": start("--init", "{HERE}/number.toml", says=("number.toml",)),
    "host without a name": start("--broker", "mqtt://nowhere.invalid", says=("'nowhere.invalid'", "resolved")),
    "port that nobody listens on": start("--broker", "mqtt://127.0.0.1:1", says=("nothing listens on port 1",)),
    "run directory below a file": start("--run-dir", "{HERE}/number.toml/run", says=("--run-dir", "Not a dir")),
    "run directory a file": start("--run-dir", "{HERE}/number.toml", says=("--run-dir", "File exists")),
    "run directory nowhere": start("--run-dir", "/proc/nowhere/run", says=("--run-dir /proc/nowhere/run",)),
    "simulate: too many per round": simulate("--per-round", "9", says=("--per-round: 9", "3")),
    "simulate: run directory a file": simulate("--run-dir", "{HERE}/list.toml", says=("--run-dir",)),
    "simulate: no such task": simulate("--task", "chess", says=("--task: 'chess'", "digits")),
    "simulate: no such device": simulate("--device", "abacus", says=("--device", "'abacus'")),
    "simulate: nothing listens": simulate("--broker", "mqtt://127.0.0.1:1", says=("nothing listens",)),
    "simulate: no mosquitto": simulate(FL_MOSQUITTO="/nowhere", says=("FL_MOSQUITTO is '/nowhere'",)),
    "simulate: data without files": simulate(
        "--task", "mnist", "--data", "{HERE}/empty", says=("mnist", "train-images", "{HERE}/empty")
    ),
    "resume of nothing": Mistake(
        ("fl-aggregator", "start", "--resume", "{HERE}/empty"), ("--resume {HERE}/empty", "no run")
    ),
    "resume of what is not there": Mistake(
        ("fl-aggregator", "simulate", "--resume", "{HERE}/no"), ("--resume {HERE}/no", "no run")
    ),
    "resume of a broken run": Mistake(
        ("fl-aggregator", "start", "--resume", "{HERE}/broken"), ("{HERE}/broken/run.json", "started")
    ),
    "resume with other settings": Mistake(
        ("fl-aggregator", "start", "--resume", "{HERE}/broken", "--rounds", "9"), ("--rounds", "--resume")
    ),
    "predict: nothing listens": Mistake(
        ("fl-aggregator", "predict", "{HERE}/list.toml", "--broker", "mqtt://127.0.0.1:1"), ("nothing listens",)
    ),
    "stop: nothing listens": Mistake(
        ("fl-aggregator", "stop", "--broker", "mqtt://127.0.0.1:1"), ("nothing listens",)
    ),
    "stop: no run": Mistake(
        ("fl-aggregator", "stop", "--broker", "{BROKER}", "--prefix", "nobody/here"),
        ("no run is online", "'nobody/here'"),
    ),
    "stop: a run that cannot be": Mistake(("fl-aggregator", "stop", "--run", "a b"), ("--run 'a b'",)),
    "stop: too long a reason": Mistake(("fl-aggregator", "stop", "--reason", "x" * 201), ("--reason", "200")),
    "edge: no id": edge(says=("--id",)),
    "edge: no such task": edge("--id", "1", "--task", "chess", says=("'chess'", "digits")),
    "edge: environment": edge(FL_ID="a/b", says=("--id", "'a/b'", "FL_ID")),
}  # fmt: skip


def run(
    here: Path, arguments: tuple[str, ...], environment: dict[str, str], timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FL_")}
    # Whoever has data sets in the usual places is not to notice.
    kept |= {"HOME": str(here / "empty"), "XDG_CACHE_HOME": str(here / "empty")}
    return subprocess.run(
        [str(programs.BIN / arguments[0]), *arguments[1:]],
        cwd=here, env={**kept, **environment}, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def is_one_clear_line(done: subprocess.CompletedProcess[str], *says: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    for words in says:
        assert words in last, done.stderr


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text('{"run": "0123456789ab", "settings": 3}')
    (tmp_path / "number.toml").write_text('rounds = "many"\n')
    (tmp_path / "list.toml").write_text("rounds = [1, 2]\n")
    (tmp_path / "name.toml").write_text("roundz = 3\n")
    return tmp_path


def everything(directory: Path) -> list[str]:
    """But what a search for data sets leaves."""
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if "MNIST" not in p.parts)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line(name: str, here: Path, shared_mosquitto: Mosquitto) -> None:
    mistake, before = MISTAKES[name], everything(here)
    arguments = tuple(
        a.replace("{BROKER}", shared_mosquitto.url).replace("{HERE}", str(here)) for a in mistake.arguments
    )
    done = run(here, arguments, mistake.environment)
    is_one_clear_line(done, *(words.replace("{HERE}", str(here)) for words in mistake.says))
    assert everything(here) == before, "nothing is left behind"


# --- what answers at the address of a broker ------------------------------------------------------------------


def start_at(here: Path, url: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ("fl-aggregator", "start", "--broker", url, "--run-dir", str(here / "run"), *arguments)
    return run(here, command, environment)


def test_connection_refused_is_said_without_waiting(here: Path) -> None:
    """The same command that is refused before it connects takes as long, but for a moment."""
    begun = time.monotonic()
    start_at(here, "mqtt://127.0.0.1:1", "--strategy", "nonsense")
    middle = time.monotonic()
    is_one_clear_line(start_at(here, "mqtt://127.0.0.1:1"), "nothing listens on port 1 of 127.0.0.1")
    assert time.monotonic() - middle < middle - begun + 4.0


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
        begun = time.monotonic()
        done = start_at(here, f"mqtt://127.0.0.1:{full.getsockname()[1]}")
    is_one_clear_line(done, "did not answer on port")
    assert time.monotonic() - begun < 5 + AT_ONCE
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


# --- a run directory that is not free, and what can be resumed ------------------------------------------------


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
    is_one_clear_line(run(tmp_path, command, {}), "is finished (1 of 1 versions)")
    assert everything(tmp_path / "run") == before


def test_another_run_is_online(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    """The one that is refused says nothing on the topics of the one that is there."""
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/online")
    (tmp_path / "empty").mkdir()
    with programs.aggregator(tmp_path / "one", url, *prefix, "--wait", "60") as first:
        wait_until(lambda: "run " in first.err, 20, "the first run")
        with Client(shared_mosquitto.endpoint, "mistakes/online/aggregator") as seen:
            done = start_at(tmp_path, url, *prefix)
            states = [json.loads(one.payload)["state"] for one in seen.received]
        is_one_clear_line(done, "is online under the prefix 'mistakes/online'", "--prefix")
        assert states == ["online"]
        assert first.running()
    assert not (tmp_path / "run").exists()


# --- edges that do not fit, or do not come --------------------------------------------------------------------


def test_a_task_that_no_edge_has(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    """The edges are told and end; the aggregator says what they had to offer, and waits for others."""
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/task")
    with programs.aggregator(
        tmp_path, url, *prefix, "--clients", "2", "--per-round", "2", "--wait", "12"
    ) as ours:
        wait_until(lambda: "run " in ours.err, 20, "the run")
        with (
            programs.edges(tmp_path / "a", url, "a", *prefix, "--task", "synthetic-50") as a,
            programs.edges(tmp_path / "b", url, "b", *prefix, "--task", "synthetic-60") as b,
        ):
            for refused in (a, b):
                assert refused.wait(30) == 2, refused.output
                assert "'digits'" in refused.err
        assert ours.running(), "somebody else may have it"
        assert ours.wait(30) == 1
    (failure,) = (line for line in ours.out.splitlines() if line.startswith("failed"))
    assert "a (the task is 'synthetic-50', but this run's is 'digits')" in failure
    assert "b (the task is 'synthetic-60', but this run's is 'digits')" in failure
    assert "wrong-task" in ours.err


def test_an_edge_without_the_data(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/data")
    (tmp_path / "empty").mkdir()
    with programs.aggregator(tmp_path, url, *prefix, "--task", "mnist", "--clients", "1", "--per-round", "1"):
        begun = ("fl-edge", "--id", "0", "--broker", url, *prefix, "--data", str(tmp_path / "empty"))
        done = run(tmp_path, begun, {}, timeout=90)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "train-images-idx3-ubyte.gz" in done.stderr
    assert str(tmp_path / "empty") in done.stderr


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
        programs.aggregator(tmp_path, url, *prefix, *TINY, "--target-accuracy", "0.5") as ours,
    ):
        ours.ends_well()
    assert "only edges with --role evaluate measure accuracy" in ours.err
    assert "finished: 1 of 1 versions" in ours.out


def test_waiting_says_for_whom_and_how_long_and_ends(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    url, prefix = shared_mosquitto.url, ("--prefix", "mistakes/wait")
    several = ("--clients", "5", "--per-round", "3", "--quorum", "3", "--wait", "12")
    with programs.edges(tmp_path / "edges", url, "0,3", *prefix, "--task", "synthetic-50") as fleet:
        with programs.aggregator(tmp_path, url, *prefix, *TINY, *several) as ours:
            assert ours.wait(60) == 1, ours.output
        assert fleet.running()
    said = [line for line in ours.err.splitlines() if "waiting for edges" in line]
    assert any("2 of 5 ready; missing: 1-2, 4; " in line and "s left (--wait)" in line for line in said), said
    assert 1 <= len(said) <= 4, said
    (failure,) = (line for line in ours.out.splitlines() if line.startswith("failed"))
    assert "2 of at least 3 edges were ready after 12 s (--wait)" in failure
    assert "no edge for partition: 1, 2, 4" in failure
