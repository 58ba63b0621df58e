"""What ``simulate --virtual`` refuses: one line, exit code 2, and no directory is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fl_mqtt.simulation.cli import simulate
from fl_shared.errors import UserError
from tests.support.device_files import GOOD


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--virtual", "--broker", "mqtt://localhost"], "--broker cannot be combined with --virtual"),
        (["--virtual", "--prefix", "a"], "--prefix cannot be combined with --virtual"),
        (["--virtual", "--keepalive", "5"], "--keepalive cannot be combined with --virtual"),
        (
            ["--virtual", "--stay"],
            "--stay cannot be combined with --virtual: in virtual time there is no broker",
        ),
        (["--heterogeneity", "phones"], "--heterogeneity needs --virtual"),
        (["--virtual", "--dp-sgd", "1"], "--dp-sgd cannot be combined with --virtual"),
        (
            ["--virtual", "--dp-local", "1,0.5", "--seeds", "0-1"],
            "--dp-local cannot be combined with --virtual",
        ),
        (
            ["--virtual", "--heterogeneity", "slow"],
            "--heterogeneity: no file 'slow'; expected a file, or one of",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options: list[str], said: str, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    done = CliRunner().invoke(simulate, [*options, "--run-dir", str(directory)])
    assert isinstance(done.exception, UserError)  # the program's exit code is 2 then
    assert said in str(done.exception)
    assert not directory.exists()


@pytest.mark.parametrize("option", ["stay", "predict"])
@pytest.mark.parametrize("source", ["environment", "file"])
def test_edges_that_are_to_outlive_the_run_are_refused_whoever_asks_for_them(
    option: str, source: str, tmp_path: Path
) -> None:
    value = "true" if option == "stay" else str(Path(__file__))
    config = tmp_path / "options.toml"
    config.write_text(f"{option} = {value}\n" if option == "stay" else f"{option} = '{value}'\n")
    given = ["--config", str(config)] if source == "file" else []
    environment = {f"FL_{option.upper()}": value} if source == "environment" else {}
    directory = tmp_path / "run"
    done = CliRunner(env=environment).invoke(simulate, ["--virtual", *given, "--run-dir", str(directory)])
    assert isinstance(done.exception, UserError)
    assert f"--{option} cannot be combined with --virtual" in str(done.exception)
    assert not directory.exists()


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--clients", "8"], 8),
        (["--clients", "8", "--seeds", "0-1"], 8),
        (["--sweep", "clients=9,3"], 3),
    ],
)
def test_devices_of_no_edge_are_refused(options: list[str], count: int, tmp_path: Path) -> None:
    (tmp_path / "devices.toml").write_text(GOOD)
    given = ["--virtual", "--heterogeneity", str(tmp_path / "devices.toml"), "--task", "digits-mlp", *options]
    done = CliRunner().invoke(simulate, [*given, "--run-dir", str(tmp_path / "run")])
    assert isinstance(done.exception, UserError), done.output
    assert f"the run has no such edge, expected one of its {count}, " in str(done.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("forked_children")
def test_a_mistake_that_edges_find_leaves_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    options = ["--task", "tabular", "--task-option", "target=x", "--data", str(tmp_path), "--clients", "2"]
    done = CliRunner().invoke(simulate, ["--virtual", *options, "--run-dir", str(directory)])
    assert isinstance(done.exception, UserError)
    assert not directory.exists()
