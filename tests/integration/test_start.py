"""``fl-aggregator start`` and ``fl-edge`` on a real broker, as they run on different machines."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.client import Client
from tests.support.simulated_aggregator import retain_birth
from tests.support.synthetic_run import TASK, Hold, settings
from tests.support.wait import wait_until

SEVEN = Path(__file__).parents[2] / "examples" / "seven.png"
SMALL = (
    "--clients",
    "3",
    "--per-round",
    "2",
    "--rounds",
    "2",
    "--epochs",
    "2",
    "--deadline",
    "60",
    "--wait",
    "60",
)

pytestmark = [pytest.mark.broker, pytest.mark.edge]


def test_a_run_and_then_predictions_with_plain_clients(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with programs.edges(tmp_path / "edges", mosquitto.url, "0-2") as fleet:
        with programs.aggregator(tmp_path, mosquitto.url, *SMALL) as run:
            wait_until(lambda: "round 1" in run.err, 60, "the first round")
            assert not programs.loads(run.pid, "torch"), "an aggregator needs no torch"
            run.ends_well()
        assert [line["version"] for line in programs.history(tmp_path)] == [1, 2]
        assert fleet.running(), "edges stay to answer predictions"

        port = str(mosquitto.port)
        with Client(mosquitto.endpoint, "fl/predictions") as listening:
            subprocess.run(["mosquitto_pub", "-p", port, "-t", "fl/predict", "-f", str(SEVEN)], check=True)
            answer = json.loads(listening.take().payload)
        assert answer["error"] is None
        assert answer["version"] == 2
        assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-6)
        assert answer["label"] == max(
            answer["probabilities"], key=lambda label: answer["probabilities"][label]
        )

        pixels = json.dumps({"pixels": [[0] * 8 for _ in range(8)]})
        asked = subprocess.run(
            ["mosquitto_rr", "-p", port, "-V", "mqttv5", "-t", "fl/predict", "-e", "fl/predictions/me",
             "-m", pixels, "-W", "20"],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        assert json.loads(asked.stdout)["label"] in set("0123456789")

        with programs.Program(
            tmp_path / "predict", "fl-aggregator", "predict", "--broker", mosquitto.url, str(SEVEN)
        ) as predict:
            predict.ends_well(40)
        assert predict.out.startswith("prediction: ")

        junk = tmp_path / "junk.png"
        junk.write_bytes(b"\x89PNG but not really")
        with programs.Program(
            tmp_path / "junk", "fl-aggregator", "predict", "--broker", mosquitto.url, str(junk)
        ) as predict:
            assert predict.wait(40) == 1
        assert re.match(r"edge \d+ could not answer: ", predict.out)


@pytest.mark.usefixtures("light_edges")
def test_what_lies_at_the_broker_during_and_after_a_run(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Clauses 2, 5.9, 8.2 and 8.4: leftovers of other runs are cleared, a round's topics end with it."""
    for topic, payload in (
        ("fl/round/77/selected", '{"kind":"selected"}'),
        ("fl/round/77/result", "x"),
        ("fl/model/0123456789ab/manifest", "y"),
        ("fl/clients/9/work", "z"),
    ):
        subprocess.run(
            ["mosquitto_pub", "-p", str(mosquitto.port), "-r", "-t", topic, "-m", payload], check=True
        )
    hold = Hold(tmp_path, 1)
    with (
        Client(mosquitto.endpoint, "#") as seen,
        programs.edges(tmp_path / "edges", mosquitto.url, "0-2", environment=hold.environment),
    ):
        with programs.aggregator(tmp_path, mosquitto.url, *SMALL, "--task", "digits-mlp") as run:
            hold.wait(seen)
            seen.wait_for_message(m.Status, phase="collecting", round=1)
            hold.release()
            run.ends_well()
        statuses = [json.loads(one.payload) for one in seen.received if one.topic == "fl/status"]
    assert [s["phase"] for s in statuses][-1] == "finished"
    assert all(len(one.payload) <= 1024 for one in seen.received if one.topic == "fl/status")
    sent = {one.topic for one in seen.received if one.payload}
    assert {"fl/round/0/selected", "fl/round/1/selected", "fl/round/2/selected", "fl/model"} <= sent

    with Client(mosquitto.endpoint, "fl/#") as later:
        later.catch_up()
    retained = later.retained
    assert {t for t in retained if t.startswith("fl/round/")} == {
        "fl/round/2/edges",
        *(f"fl/round/{n}/result" for n in (0, 1, 2)),
    }
    assert "fl/clients/9/work" not in retained
    assert "fl/model/0123456789ab/manifest" not in retained
    newest = json.loads(retained["fl/model"])
    assert newest["version"] == 2
    assert f"fl/model/{newest['digest'][:12]}/0" in retained
    assert json.loads(retained["fl/aggregator"])["state"] == "offline"
    result = json.loads(retained["fl/round/2/result"])
    assert result["outcome"] == "committed"
    assert result["metrics"]["accuracy"] > 0


def test_an_edge_killed_in_the_middle_of_a_round_is_named(tmp_path: Path, mosquitto: Mosquitto) -> None:
    hold = Hold(tmp_path, 1)
    with (
        Client(mosquitto.endpoint, "fl/#") as observer,
        programs.edges(
            tmp_path / "others", mosquitto.url, "0-1", "--task", TASK, environment=hold.environment
        ),
        programs.edges(
            tmp_path / "2", mosquitto.url, "2", "--task", TASK, environment=hold.environment
        ) as victim,
    ):
        options = (*settings(1), "--quorum", "2", "--grace", "0")
        with programs.aggregator(tmp_path, mosquitto.url, *options) as run:
            hold.wait(observer)
            programs.kill(victim)
            hold.release()
            run.ends_well()
    (line,) = programs.history(tmp_path)
    assert line["participants"] == ["0", "1"]
    assert list(line["missing"]) == ["2"]
    assert line["missing"]["2"].startswith("offline")


def test_a_second_aggregator_under_the_same_prefix_is_refused(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Clause 8.3."""
    # A ghost's birth under another prefix is found out by its silence, which takes seconds: meanwhile the others.
    retain_birth(mosquitto.endpoint, "ghost")
    with (
        programs.aggregator(tmp_path / "four", mosquitto.url, "--prefix", "ghost", "--wait", "1") as fourth,
        programs.aggregator(tmp_path / "one", mosquitto.url, "--wait", "60") as first,
        programs.aggregator(
            tmp_path / "three", mosquitto.url, "--prefix", "other/fl", "--wait", "1"
        ) as third,
    ):
        wait_until(lambda: (tmp_path / "one" / "run" / "run.json").exists(), 20, "the first aggregator")
        with programs.aggregator(tmp_path / "two", mosquitto.url) as second:
            assert second.wait(20) == 2
        assert "is online" in second.err
        assert not (tmp_path / "two" / "run").exists(), "nothing is left of a run that did not begin"
        assert third.wait(20) == 1, third.output
        assert first.running()
        first.send(signal.SIGKILL)
        first.wait()
        # Its will says that it is gone.
        with programs.aggregator(tmp_path / "after", mosquitto.url, "--wait", "1") as after:
            assert after.wait(20) == 1, after.output
        assert fourth.wait(20) == 1, fourth.output
    assert "ghost does not respond" in fourth.err


def test_ctrl_c_ends_it_with_130(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with programs.aggregator(tmp_path, mosquitto.url, "--wait", "60") as run:
        wait_until(lambda: "watch it: " in run.err, 30, "the run")
        run.send(signal.SIGINT)
        assert run.wait(30) == 130
    assert "stopped" in run.out
    assert "Traceback" not in run.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--per-round", "30"], "--per-round"),
        (["--strategy", "nonsense"], "nonsense"),
        (["--partition", "nonsense"], "nonsense"),
        (["--partition", "dirichlet:x"], "dirichlet"),
        (["--lr", "-1"], "--lr"),
        (["--lr", "nan"], "--lr"),
        (["--holdout", "1"], "--holdout"),
        (["--prefix", "a+b"], "prefix"),
        (["--quorum", "11"], "--quorum"),
        (["--broker", "http://localhost"], "http"),
        (["--broker", "mqtt://user:secret@localhost"], "FL_PASSWORD"),
        (["--broker", "mqtt://127.0.0.1:1"], "127.0.0.1:1"),
        (["--init", "README.md"], "README.md"),
        (["--config", "/nonexistent.toml"], "nonexistent"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    common = ["--run-dir", str(tmp_path / "run"), "--wait", "1"]
    with programs.Program(tmp_path, "fl-aggregator", "start", *common, *arguments) as run:
        assert run.wait(30) == 2, run.output
    assert said in run.err
    assert "secret" not in run.err
    assert "Traceback" not in run.err


def test_a_run_directory_that_cannot_be_used(tmp_path: Path, mosquitto: Mosquitto) -> None:
    (tmp_path / "file").write_text("")
    with programs.Program(
        tmp_path,
        "fl-aggregator",
        "start",
        "--broker",
        mosquitto.url,
        "--run-dir",
        str(tmp_path / "file" / "run"),
    ) as run:
        assert run.wait(20) == 2, run.output
    assert "--run-dir" in run.err
    with programs.aggregator(tmp_path / "a", mosquitto.url, "--wait", "1") as first:
        assert first.wait(20) == 1
    with programs.aggregator(tmp_path / "a", mosquitto.url, "--wait", "1") as again:
        assert again.wait(20) == 2
    assert "already contains a run" in again.err


def test_options_from_the_environment_and_a_file(tmp_path: Path, mosquitto: Mosquitto) -> None:
    config = tmp_path / "fl.toml"
    config.write_text('rounds = 3\nper-round = 4\nwait = 0.5\nprefix = "site/fl"\n')
    environment = {**os.environ, "FL_ROUNDS": "7", "FL_BROKER": mosquitto.url}
    arguments = ("start", "--config", str(config), "--run-dir", str(tmp_path / "run"))
    done = programs.run("fl-aggregator", *arguments, environment=environment)
    assert done.returncode == 1, done.stderr
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert (settings["rounds"], settings["per_round"], settings["prefix"]) == (7, 4, "site/fl")


@pytest.mark.usefixtures("light_edges")
def test_a_second_run_and_a_resumed_one_accuse_nobody(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """What the first one left at the broker is one line."""
    left = "cleared or replaced"
    settings = (mosquitto.url, *SMALL, "--task", "digits-mlp")
    first = programs.aggregator(tmp_path / "first", *settings)
    with programs.edges(tmp_path / "edges", mosquitto.url, "0-2"), first:
        first.ends_well()
        (run,) = re.findall(r"run ([0-9a-f]{12})", first.err)[:1]
        with programs.aggregator(tmp_path / "second", *settings, "--rounds", "10000") as second:
            wait_until(lambda: left in second.err, 60, "the line")
            second.send(signal.SIGINT)
            assert second.wait() == 130
        directory = str(tmp_path / "second" / "run")
        resumed = programs.Program(tmp_path / "third", "fl-aggregator", "start", "--resume", directory)
        with resumed as third:
            wait_until(lambda: left in third.err, 60, "the line")
            third.send(signal.SIGINT)
            assert third.wait() == 130
    assert re.search(rf"{left} \d+ retained messages of run {run}", second.err)
    for each in (second, third):
        assert each.err.count(left) == 1
        assert "refused" not in each.err + each.out
        assert "warning" not in each.err
