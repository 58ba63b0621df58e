"""``simulate --seeds --sweep``: a sweep that is killed goes on where it was, and has its report."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fl_aggregator.tools.report.sweep import read_sweep
from fl_aggregator.tools.report.sweep_page import sweep_page
from fl_mqtt.cli.main import cli
from fl_mqtt.simulation import sweep_cli
from tests.support import programs
from tests.support.device_files import AVAILABILITY, CAPACITY, traced
from tests.support.wait import wait_until

RUN = (
    *("--task", "digits-mlp", "--clients", "2", "--rounds", "2", "--epochs", "1"),
    *("--deadline", "120", "--wait", "120"),
)
NAMES = [f"lr={lr}_seed={seed}" for lr in ("0.01", "0.1") for seed in (0, 1)]

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges")]


def record(directory: Path, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((directory / "run" / name / "run.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    with programs.simulate(tmp_path, *RUN, "--seeds", "0-1", "--sweep", "lr=0.01,0.1") as first:
        wait_until(lambda: bool(record(tmp_path, NAMES[0]).get("ended")), 120, "the first run is finished")
        first.send(signal.SIGKILL)
        first.wait()
    kept = record(tmp_path, NAMES[0])
    again = ("--resume", str(tmp_path / "run"), "--parallel", "2", "--json")
    with programs.Program(tmp_path / "again", "fl-aggregator", "simulate", *again) as second:
        second.ends_well(240)
    assert "of 4 runs are finished already" in second.err
    assert record(tmp_path, NAMES[0]) == kept, "a finished run is left alone"
    assert second.result["failed"] == {}
    assert [(run["name"], run["finished"]) for run in second.result["runs"]] == [
        (name, True) for name in NAMES
    ]
    assert [record(tmp_path, name)["settings"]["lr"] for name in NAMES] == [0.01, 0.01, 0.1, 0.1]
    assert [record(tmp_path, name)["settings"]["seed"] for name in NAMES] == [0, 1, 0, 1]
    losses = [run["metrics"]["loss"] for run in second.result["runs"]]
    assert len(set(losses)) == 4
    assert "lr=0.01    2 of 2" in second.out
    page = sweep_page(read_sweep(tmp_path / "run"))
    assert "settings: 2 · runs: 4 · finished: 4" in page


def test_a_run_that_fails_is_named_and_the_sweep_ends_with_1(tmp_path: Path) -> None:
    """Only the edges know that the task has no such metric. In virtual time, since that is faster."""
    arguments = (
        *RUN,
        "--virtual",
        "--run-dir",
        str(tmp_path / "run"),
        "--sweep",
        "target=accuracy=0.01,cake=0.5",
    )
    with programs.Program(tmp_path, "fl-aggregator", "simulate", "--json", *arguments) as run:
        assert run.wait(240) == 1, run.output
    assert "failed: target=cake=0.5_seed=0 (exit code 2: " in run.out
    assert "the task 'digits-mlp' has no metric 'cake'" in run.out
    assert run.result["failed"].keys() == {"target=cake=0.5_seed=0"}
    assert f"resume with: fl-aggregator simulate --resume {tmp_path / 'run'}" in run.out


def test_a_sweep_goes_on_in_another_directory_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was interrupted before its first run. The program that resumes it has another current directory."""
    traced(tmp_path, CAPACITY, AVAILABILITY)
    arguments = ("--task", "synthetic-16", "--clients", "9", "--virtual", "--heterogeneity", "devices.toml")
    with monkeypatch.context() as patch:
        patch.setattr(sweep_cli, "run", lambda *_, **__: 130)
        patch.chdir(tmp_path)
        patch.setenv("FL_ROUNDS", "3")
        begun = CliRunner().invoke(cli, ["simulate", *arguments, "--seeds", "0", "--run-dir", "run"])
    assert begun.exit_code == 0, begun.output + str(begun.exception)
    monkeypatch.setenv("FL_ROUNDS", "1")
    again = ("--resume", str(tmp_path / "run"), "--json")
    with programs.Program(tmp_path / "again", "fl-aggregator", "simulate", *again) as run:
        run.ends_well(240)
    assert record(tmp_path, "seed=0")["settings"]["rounds"] == 3
