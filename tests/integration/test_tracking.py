"""What other programs are told of real runs: Prometheus, TensorBoard, MLflow."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.ports import free_port
from tests.support.tensorboard import scalars
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.edge]

IDS = "lab-a,lab-b,lab-c"
COMMON = ("--task", "synthetic-1000", "--clients", "3", "--per-round", "2", "--holdout", "0", "--grace", "1")

Metrics = dict[str, float]


def scrape(port: int) -> tuple[str, Metrics]:
    """The page, and its values by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
        text = answer.read().decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
    return text, {name: float(value) for name, _, value in lines}


def value(port: int, name: str) -> float:
    """0 while nobody serves, or there is no such metric yet. A program may end in the midst of an answer."""
    with contextlib.suppress(OSError, HTTPException):
        return scrape(port)[1].get(name, 0.0)
    return 0.0


@pytest.fixture
def endless(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[tuple[programs.Program, programs.Program, int]]:
    """An aggregator that has rounds enough, its edges, and the port of its metrics."""
    port = free_port()
    arguments = (*COMMON, "--rounds", "100000", "--metrics-port", str(port))
    with (
        programs.edges(tmp_path / "edges", mosquitto.url, IDS) as edges,
        programs.aggregator(tmp_path, mosquitto.url, *arguments) as aggregator,
    ):
        wait_until(lambda: value(port, 'fl_rounds_total{outcome="committed"}') >= 5, 60, "five rounds")
        yield aggregator, edges, port


def test_metrics_of_a_run(
    endless: tuple[programs.Program, programs.Program, int], tmp_path: Path, mosquitto: Mosquitto
) -> None:
    aggregator, edges, port = endless
    _, before = scrape(port)
    text, found = scrape(port)
    assert found['fl_updates_total{reason="",verdict="accepted"}'] >= 10, "two a round, and the first weights"
    assert found['fl_round_phase_seconds_count{phase="collecting"}'] >= 5
    assert found["fl_upload_bytes_total"] >= 5 * 2 * 4000
    assert found["fl_download_bytes_total"] >= 5 * 4000
    assert (
        sum(found[f'fl_edges{{state="{s}"}}'] for s in ("present", "training", "in", "missing", "offline"))
        <= 3
    )
    assert found["fl_connected"] == 1
    assert found["fl_paused"] == 0
    assert found["fl_model_versions_wanted"] == 100_000
    assert sum(found[name] for name in found if name.startswith("fl_phase{")) == 1
    assert found["process_resident_memory_bytes"] > 10**6
    assert not re.search("lab-", text), "no label names an edge"
    labels = {label for line in text.splitlines() for label in re.findall(r'(\w+)="', line.partition(" ")[0])}
    assert labels <= {"outcome", "verdict", "reason", "phase", "state", "tracker", "le"}
    for name, now in found.items():
        if name.endswith("_total") or "_total{" in name:
            assert now >= before.get(name, 0.0), f"{name} went down"

    junk = ["mosquitto_pub", "-p", str(mosquitto.port), "-t", "fl/updates/lab-a", "-m", "junk"]
    subprocess.run(junk, check=True, timeout=120)
    malformed = wait_until(
        lambda: [n for n in scrape(port)[1] if n.startswith("fl_refused_messages_total{")],
        10,
        "junk is counted",
    )
    assert all("lab-a" not in name for name in malformed)

    edges.send(signal.SIGKILL)
    wait_until(lambda: value(port, 'fl_edges{state="offline"}') + value(port, 'fl_edges{state="missing"}') == 3, 20,
          "all edges are gone")  # fmt: skip
    mosquitto.kill()
    wait_until(lambda: scrape(port)[1]["fl_connected"] == 0, 20, "the broker is gone")
    aggregator.send(signal.SIGINT)
    assert aggregator.wait(30) == 130
    with pytest.raises(OSError, match="refused"):
        scrape(port)


@pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="THE METRICS ARE NOT CHECKED: no promtool (apt install prometheus)",
)
def test_promtool_accepts_the_metrics(endless: tuple[programs.Program, programs.Program, int]) -> None:
    text, _ = scrape(endless[2])
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    # That it does complain of what is wrong:
    wrong = "# TYPE fl_rounds counter\nfl_rounds 1\n"
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=wrong, text=True, capture_output=True, check=False
    )
    assert check.returncode != 0


def test_a_port_that_is_taken_is_told_at_once(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with programs.aggregator(tmp_path, mosquitto.url, *COMMON, "--metrics-port", str(port)) as run:
            assert run.wait(20) == 2
    (said,) = [line for line in run.err.splitlines() if line.startswith("fl-aggregator:")]
    assert said == f"fl-aggregator: --metrics-port {port}: 127.0.0.1: Address already in use"
    assert "Traceback" not in run.err
    assert not (tmp_path / "run").exists()


def test_tensorboard_has_every_round_once_over_a_kill_and_a_resume(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    with programs.edges(tmp_path / "edges", mosquitto.url, IDS):
        with programs.aggregator(tmp_path, mosquitto.url, *COMMON, "--rounds", "60") as first:
            wait_until(lambda: len(version_scalars(tmp_path)) >= 5, 60, "five rounds")
            first.send(signal.SIGKILL)
            first.wait()
        with programs.resumed(tmp_path) as second:
            second.ends_well(90)
    found, lines = scalars(tmp_path / "run"), programs.history(tmp_path)
    rounds = [line["round"] for line in lines]
    assert [step for step, _ in found["round/participants"]] == rounds
    assert [int(version) for _, version in found["version"]] == list(range(1, 61))
    assert found["bytes/up"][-1] == (rounds[-1], float(lines[-1]["bytes"]["up"]))
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 2, "a file a start"
    loaded = [second, first]
    assert all("tensorboard:" not in run.err for run in loaded)


def version_scalars(tmp_path: Path) -> list[tuple[int, float]]:
    if not (tmp_path / "run" / "tensorboard").exists():
        return []
    return scalars(tmp_path / "run").get("version", [])


def test_a_run_goes_on_without_a_tracker_that_fails(tmp_path: Path, mosquitto: Mosquitto) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").write_text("in the way")
    port = free_port()
    arguments = (*COMMON, "--rounds", "8", "--metrics-port", str(port))
    failures: list[float] = []

    def looked() -> bool:
        failures.append(value(port, 'fl_tracking_failures_total{tracker="tensorboard"}'))
        return not run.running()

    with (
        programs.edges(tmp_path / "edges", mosquitto.url, IDS),
        programs.aggregator(tmp_path, mosquitto.url, *arguments) as run,
    ):
        wait_until(looked, 60, "the run is over")
        run.ends_well()
    assert Counter("tensorboard: " in line for line in run.err.splitlines())[True] == 1
    assert max(failures) >= 1
    assert len(programs.history(tmp_path)) == 8


@pytest.mark.long
def test_mlflow_has_the_settings_and_every_round(
    tmp_path: Path, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'fl-mqtt[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "mlruns").as_uri()
    with programs.edges(tmp_path / "edges", mosquitto.url, IDS):
        with programs.aggregator(
            tmp_path, mosquitto.url, *COMMON, "--rounds", "100000", "--no-tensorboard", "--mlflow", uri
        ) as first:
            lines = tmp_path / "run" / "history.jsonl"
            wait_until(lambda: lines.exists() and len(programs.history(tmp_path)) > 3, 60, "three rounds")
            first.send(signal.SIGINT)
            assert first.wait(30) == 130
        client = mlflow.MlflowClient(uri)
        (logged,) = client.search_runs([client.get_experiment_by_name("fl-mqtt").experiment_id])
        assert logged.info.status == "KILLED"
        assert logged.data.params["task"] == "synthetic-1000"
        with programs.Program(
            tmp_path / "again", "fl-aggregator", "start", "--resume", str(tmp_path / "run"), "--mlflow", uri,
        ) as second:  # fmt: skip
            wait_until(lambda: "round" in second.err, 60, "it goes on")
            seen = len(programs.history(tmp_path))
            wait_until(lambda: len(programs.history(tmp_path)) > seen + 2, 60, "more rounds")
            second.send(signal.SIGINT)
            second.wait(30)
    (still,) = client.search_runs([client.get_experiment_by_name("fl-mqtt").experiment_id])
    assert still.info.run_id == logged.info.run_id, "it goes on in the same run"
    points = client.get_metric_history(logged.info.run_id, "version")
    assert [point.step for point in points] == [line["round"] for line in programs.history(tmp_path)]
    assert not list((tmp_path / "run").glob("tensorboard/*.1")), "--no-tensorboard"


def test_a_password_in_mlflows_uri_is_refused(tmp_path: Path, mosquitto: Mosquitto) -> None:
    uri = "http://me:s3cret@127.0.0.1:1"
    with programs.aggregator(tmp_path, mosquitto.url, *COMMON, "--mlflow", uri) as run:
        assert run.wait(20) == 2
    assert "MLFLOW_TRACKING_PASSWORD" in run.err
    assert "s3cret" not in run.err


def test_silent_connections_to_the_metrics_do_not_disturb_a_run(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """There are more than the aggregator may have files open."""
    port = free_port()
    run = programs.Program(
        tmp_path, "/bin/sh", "-c", 'ulimit -n 256; exec "$0" "$@"', str(programs.BIN / "fl-aggregator"), "start",
        "--broker", mosquitto.url, "--run-dir", str(tmp_path / "run"), *COMMON, "--rounds", "3",
        "--metrics-port", str(port),
    )  # fmt: skip
    with run, contextlib.ExitStack() as silent:
        wait_until(lambda: value(port, "fl_model_versions_wanted") == 3, 60, "its metrics")
        for _ in range(400):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        with programs.edges(tmp_path / "edges", mosquitto.url, IDS):
            run.ends_well()
    assert "too many open files" not in run.err, run.output
