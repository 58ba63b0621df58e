"""What is wrong on a command line or in its file is said at once: exit 2, one line, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fl_aggregator.cli.main import cli as fl_aggregator
from fl_edge.cli import command as fl_edge
from fl_shared.errors import UserError

HERE = "mqtt://127.0.0.1:1"
"""Nothing listens there: whatever gets so far was let in."""


@pytest.fixture(autouse=True)
def _a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("hello\n")


def refusal(command: click.Command, *arguments: str, **environment: str) -> str:
    """The line with which a command refuses its arguments, having written nothing."""
    before = sorted(Path().rglob("*"))
    result = CliRunner().invoke(command, list(arguments), env=environment, standalone_mode=False)
    assert isinstance(result.exception, UserError | click.UsageError), (result.exception, result.output)
    assert result.exception.exit_code == 2
    assert sorted(Path().rglob("*")) == before
    line = (
        result.exception.format_message()
        if isinstance(result.exception, click.UsageError)
        else str(result.exception)
    )
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(
            ("start", one)
            for one in ("run-dir", "resume", "mqtt-client-id", "metrics-host", "mlflow", "init")
        ),
        *(("start", one) for one in ("task", "strategy", "transform", "clients", "broker", "kit")),
        *(("simulate", one) for one in ("data", "predict", "device")),
    ],
)
def test_an_empty_value_is_refused(command: str, option: str) -> None:
    """An empty path would be the current directory, and an empty id any id."""
    line = refusal(fl_aggregator, command, f"--{option}", "")
    assert f"--{option}" in line
    assert "'' is empty; expected a value" in line


@pytest.mark.parametrize(
    "option", ["id", "role", "task", "state-dir", "parts-file", "heartbeat", "mqtt-client-id"]
)
def test_an_edge_refuses_an_empty_value(option: str) -> None:
    assert "'' is empty; expected a value" in refusal(fl_edge, "--id", "0", f"--{option}", "")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (fl_edge, ("--id", "0", "--wait", "inf")),
        (fl_edge, ("--id", "0", "--wait", "nan")),
        (fl_aggregator, ("watch", "--wait", "nan")),
        (fl_aggregator, ("stop", "--timeout", "nan")),
        (fl_aggregator, ("predict", "text", "--timeout", "nan")),
    ],
)
def test_seconds_are_a_finite_number(command: click.Command, arguments: tuple[str, ...]) -> None:
    assert f"{arguments[-1]} is not a finite number" in refusal(command, *arguments)


@pytest.mark.parametrize("arguments", [("report", ""), ("predict", ""), ("export", "", "a.onnx")])
def test_an_empty_argument_is_refused(arguments: tuple[str, ...]) -> None:
    assert "'' is empty; expected a value" in refusal(fl_aggregator, *arguments)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clients = 2.5", "'2.5' is not a valid integer"),  # it was cut to 2
        ("clients = true", "clients: is a boolean; expected one value"),  # it was taken as 1
        ("clients = 2024-01-01", "clients: is a date or time; expected one value"),
        ("clients = [3]", "clients: is a list; expected one value"),
        ("[clients]\na = 1", "clients: is a table; expected one value"),
        ("quiet = 3", "'3' is not a valid boolean"),
        ('run_dir = ""', "run_dir: '' is empty; expected a value"),
        ("task_option = 5", "'5': expected KEY=VALUE"),
        ("task_option = {target = {a = 1}}", "task_option: is a table; expected one value"),
        ("transform = [[1]]", "transform: is a list; expected one value"),
        ("lr = nan", "--lr nan: input should be a finite number"),
    ],
)
def test_a_value_of_the_file_has_the_type_that_a_command_line_can_say(text: str, says: str) -> None:
    Path("run.toml").write_text(text)
    assert says in refusal(fl_aggregator, "start", "--config", "run.toml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--task", "a b"),
            "--task 'a b': expected the name of a task, such as digits, or package.module:Class",
        ),
        (
            ("--task-option", "A=b"),
            "--task-option 'A': expected the name of an option: small letters, digits and _",
        ),
        (("--init", "text"), "--init text: not a readable safetensors file"),
        (("--metrics-host", "0.0.0.0"), "--metrics-host 0.0.0.0 needs --metrics-port"),
        (("--metrics-port", "9", "--metrics-host", "192.0.2.1"), "--metrics-host 192.0.2.1: "),
        (("--run-dir", "a/b/c"), "no connection to mqtt://127.0.0.1:1"),
        ((), "no connection to mqtt://127.0.0.1:1"),
    ],
)
def test_a_start_that_fails_leaves_nothing_behind(arguments: tuple[str, ...], says: str) -> None:
    """Not even the empty folders above a run's."""
    assert says in refusal(fl_aggregator, "start", "--broker", HERE, "--no-tensorboard", *arguments)


def test_an_empty_directory_of_the_user_stays() -> None:
    Path("mine").mkdir()
    assert "no connection" in refusal(fl_aggregator, "start", "--broker", HERE, "--run-dir", "mine")
    assert Path("mine").is_dir()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--task", "nonsense"), "--task: 'nonsense' is unknown here, expected one of: digits, mnist"),
        (("--task", "synthetic-x"), "task 'synthetic-x': expected synthetic-N"),
        (("--task", "tabular"), "option 'target' is missing: --task-option target=VALUE"),
        (("--task", "tabular", "--task-option", "targt=x"), "option 'targt' is unknown"),
        (("--task", "digits-mlp", "--task-option", "a=b"), "option 'a' is unknown"),
    ],
)
def test_a_simulation_knows_its_edges_tasks(arguments: tuple[str, ...], says: str) -> None:
    assert says in refusal(fl_aggregator, "simulate", *arguments)
