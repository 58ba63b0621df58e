"""Which runs a sweep has, and what is wrong with a sweep that is refused."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from fl_aggregator.storage.sweep_record import SweepRecord, read_sweep_record
from fl_mqtt.cli.main import cli
from fl_mqtt.simulation import sweep_cli
from fl_mqtt.simulation.sweep_plan import option_arguments, parse_axes, parse_seeds, plan
from fl_shared.errors import UserError
from tests.support.device_files import GOOD

KNOWN = ("lr", "partition", "per_round", "strategy")


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("0-4", [0, 1, 2, 3, 4]), ("0,3, 7-9", [0, 3, 7, 8, 9]), ("5-5", [5])]
)
def test_seeds_are_numbers_and_ranges(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected numbers and ranges"),
        ("1,", "'', expected numbers"),
        ("-1", "'-1', expected"),
        ("a-b", "'a-b', expected"),
        ("4-0", "ends before it begins, expected 0-4"),
        ("0-5000", "5001 seeds, expected at most 1000"),
        ("1,0-2", "has 1 twice"),
    ],
)
def test_other_seeds_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        parse_seeds(text)
    assert str(caught.value).startswith("--seeds: ")


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("lr=0.01,0.03", "lr", ["0.01", "0.03"]),
        ("--per-round=2, 3", "per_round", ["2", "3"]),
        ("strategy=fedavg;krum:bad=1,m=2", "strategy", ["fedavg", "krum:bad=1,m=2"]),
        ("partition=iid,dirichlet:0.1", "partition", ["iid", "dirichlet:0.1"]),
    ],
)
def test_an_axis_is_an_option_with_its_values(text: str, name: str, values: list[str]) -> None:
    assert parse_axes([text], KNOWN) == {name: values}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["lr"], "'lr': expected NAME=VALUE,VALUE"),
        (["lr=0.1,"], "expected NAME=VALUE,VALUE"),
        (["lr=0.1,0.1"], "has 0.1 twice"),
        (["lr=0.1", "lr=0.2"], "lr is given twice"),
        (["seed=0,1"], "expected --seeds 0,1"),
        (["cake=1,2"], "'cake' cannot be swept, expected one of: lr, partition, per-round, strategy"),
    ],
)
def test_other_axes_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_axes(texts, KNOWN)


def made(axes: dict[str, list[str]], seeds: list[int]) -> SweepRecord:
    return plan(axes, seeds, ["--task", "digits"], lambda setting: [f"{k}:{v}" for k, v in setting.items()])


def test_a_sweep_is_the_product_of_all_axes_and_seeds() -> None:
    record = made({"lr": ["0.1", "0.2"], "per_round": ["2", "3"]}, [0, 1])
    assert len(record.runs) == 8
    assert [run.seed for run in record.runs[:3]] == [0, 1, 0]
    third = record.runs[2]
    assert third.name == "lr=0.1_per-round=3_seed=0"
    assert third.setting_text == "lr=0.1, per-round=3"
    assert third.arguments == ["--task", "digits", "lr:0.1", "per_round:3", "--seed", "0"]
    assert [len(runs) for runs in record.settings.values()] == [2, 2, 2, 2]


def test_names_are_those_of_directories_and_differ(tmp_path: Path) -> None:
    record = made({"partition": ["a/b:1", "a:b/1", "../.."]}, [0])
    names = [run.name for run in record.runs]
    assert len(set(names)) == 3
    assert all((tmp_path / name).resolve().parent == tmp_path.resolve() for name in names)
    record.write(tmp_path)
    assert read_sweep_record(tmp_path) == record


def test_a_sweep_that_is_too_large_is_refused() -> None:
    with pytest.raises(UserError, match="2000 runs, expected at most 1000"):
        made({"lr": ["0.1", "0.2"]}, list(range(1000)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "the file: Invalid JSON"),
        ('{"runs": []}', "runs: "),
        ('{"runs": [{"name": "../x"}]}', "runs.0.name: "),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/sweep.json: {message}")):
        read_sweep_record(tmp_path)


# --- the command line -------------------------------------------------------------------------------------


def simulate(*arguments: str, **environment: str) -> click.testing.Result:
    return CliRunner(env=environment).invoke(cli, ["simulate", "--task", "digits-mlp", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0-1", "--seed", "3"], "--seed cannot be combined with --seeds"),
        (["--sweep", "lr=0.1", "--lr", "0.2"], "--lr cannot be combined with --sweep"),
        (["--sweep", "lr=0.1,fast"], "'fast' is not a valid float"),
        (["--sweep", "clients=3,0"], "--clients"),
        (["--sweep", "partition=iid,cake"], "--partition 'cake'"),
        (["--sweep", "strategy=fedavg,magic"], "magic"),
        (["--sweep", "task-option=a"], "'a': expected KEY=VALUE"),
        (["--task-option", "a=1", "--sweep", "task-option=a=2"], "a is given twice"),
        (["--sweep", "task-option=cake=1,cake=2"], "cake"),
        (["--sweep", "heterogeneity=gateways,phones"], "heterogeneity needs --virtual"),
        (["--virtual", "--sweep", "heterogeneity=gateways,cake"], "cake"),
        (
            ["--virtual", "--heterogeneity", "silos", "--sweep", "heterogeneity=gateways"],
            "--heterogeneity cannot be combined with --sweep",
        ),
        (["--seeds", "0-1", "--stay"], "--stay cannot be combined with a sweep"),
        (["--seeds", "0-1", "--metrics-port", "9"], "--metrics-port cannot be combined with a sweep"),
        (["--sweep", "workers=1,2"], "'workers' cannot be swept, expected one of: batch-size, "),
        (["--sweep", "workers=1,2"], "rounds, serve, "),
        (["--parallel", "2"], "--parallel needs a sweep"),
        (["--seeds", "0-1", "--attack", "cake"], "cake"),
        (
            ["--seeds", "0-1", "--broker", "mqtt://127.0.0.1:1", "--parallel", "2"],
            "the runs would disturb each other",
        ),
        (["--seeds", "0-1", "--mlflow", "http://me:secret@mlflow.example"], "a password in the URI"),
        (["--seeds", "0-1", "--mlflow", "http://mlflow.example"], "mlflow is not installed"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "mlflow" else name)
    done = simulate(*arguments, "--run-dir", str(tmp_path / "sweep"))
    text = done.output + str(done.exception or "")
    assert message in text
    assert isinstance(done.exception, UserError) or done.exit_code == 2
    assert not (tmp_path / "sweep").exists(), "the corrected command must find no directory"


def test_without_a_broker_nothing_is_written(tmp_path: Path) -> None:
    done = simulate("--seeds", "0-1", "--run-dir", str(tmp_path / "sweep"), FL_MOSQUITTO="/no/where")
    assert "FL_MOSQUITTO" in str(done.exception)
    assert not (tmp_path / "sweep").exists()


def test_the_environment_starts_no_sweep() -> None:
    """Each run of a sweep reads it, too."""
    done = simulate(FL_SEEDS="0-1")
    assert isinstance(done.exception, UserError)
    assert "--seeds belongs on the command line" in str(done.exception)


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps are planned in a directory of their own, and not run."""
    monkeypatch.setattr(sweep_cli, "run", lambda *_, **__: 0)
    monkeypatch.delenv("FL_WORKERS", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("planned")
def test_each_run_gets_the_options_of_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    given = ("--data", "data", "--clients", "3", "--no-tensorboard")
    axes = ("--sweep", "lr=0.1", "--sweep", "transform=clip:norm=1;clip:norm=2")
    done = simulate("--seeds", "4-5", *axes, *given, "--run-dir", "sweep", "--json", "-q", "--parallel", "2")
    assert done.exit_code == 0, done.output
    last = read_sweep_record(tmp_path / "sweep").runs[-1]
    assert last.setting == {"lr": "0.1", "transform": "clip:norm=2"}
    swept = ("--lr", "0.1", "--transform", "clip:norm=2", "--seed", "5")
    expected = ("--task", "digits-mlp", *given, *swept)
    assert sorted(last.arguments) == sorted(
        word if word != "data" else str(tmp_path / word) for word in expected
    )
    again = simulate("--seeds", "0", "--run-dir", "sweep")
    assert "is not empty, expected a new directory; continue it with: " in str(again.exception)


def test_devices_and_options_of_the_task_can_be_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_cli, "run", lambda *_, **__: 0)
    monkeypatch.setattr(
        "fl_mqtt.simulation.cli._check_task", lambda settings: seen.append(settings.task_option)
    )
    seen: list[dict[str, str]] = []
    axes = ("--sweep", "heterogeneity=gateways,phones", "--sweep", "task-option=size=1,size=2")
    directory = tmp_path / "sweep"
    done = simulate("--virtual", "--task-option", "kind=a", *axes, "--run-dir", str(directory))
    assert done.exit_code == 0, done.output
    assert {"kind": "a", "size": "2"} in seen
    record = read_sweep_record(directory)
    assert [one.name for one in record.runs][-1] == "heterogeneity=phones_task-option=size=2_seed=0"
    arguments = record.runs[-1].arguments
    assert arguments[arguments.index("--heterogeneity") + 1] == "phones"
    assert [one for one in arguments if "=" in one] == ["kind=a", "size=2"]


@pytest.mark.usefixtures("planned")
def test_what_environment_and_config_give_is_recorded(tmp_path: Path) -> None:
    """A resume in another shell must not give the remaining runs other options."""
    (tmp_path / "fl.toml").write_text(
        "rounds = 7\nclients = 4\nmasked = false\ntransform = ['clip:norm=1']\n"
    )
    environment = {"FL_ROUNDS": "33", "FL_LR": "0.5", "FL_TENSORBOARD": "no", "FL_TASK_OPTION": "hidden=8"}
    environment |= {"FL_PASSWORD": "secret", "FL_METRICS_HOST": "::1", "FL_LOG_FORMAT": "json"}
    axes = ("--seeds", "4", "--sweep", "lr=0.1")
    done = simulate("--config", "fl.toml", "--clients", "3", *axes, "--run-dir", "sweep", **environment)
    assert done.exit_code == 0, done.output + str(done.exception)
    (run,) = read_sweep_record(tmp_path / "sweep").runs
    expected = (
        *("--task", "digits-mlp", "--clients", "3", "--rounds", "33", "--transform", "clip:norm=1"),
        *("--task-option", "hidden=8", "--no-tensorboard", "--lr", "0.1", "--seed", "4"),
    )
    assert sorted(run.arguments) == sorted(expected)


@pytest.mark.usefixtures("planned")
def test_a_broker_in_the_environment_does_not_reach_virtual_time(tmp_path: Path) -> None:
    """A run in virtual time refuses it on its command line only."""
    done = simulate("--virtual", "--seeds", "4", "--run-dir", "sweep", FL_BROKER="mqtt://broker.example")
    assert done.exit_code == 0, done.output + str(done.exception)
    (run,) = read_sweep_record(tmp_path / "sweep").runs
    assert run.arguments == ["--task", "digits-mlp", "--virtual", "--seed", "4"]


@pytest.mark.parametrize(
    "arguments", [("--heterogeneity", "fleet.toml"), ("--sweep", "heterogeneity=fleet.toml,silos")]
)
@pytest.mark.usefixtures("planned")
def test_a_device_file_is_found_from_elsewhere(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "fleet.toml").write_text(GOOD)
    done = simulate("--virtual", "--seeds", "0", *arguments, "--run-dir", "sweep")
    assert done.exit_code == 0, done.output + str(done.exception)
    runs = read_sweep_record(tmp_path / "sweep").runs
    devices = [run.arguments[run.arguments.index("--heterogeneity") + 1] for run in runs]
    assert devices == [str(tmp_path / "fleet.toml"), "silos"][: len(runs)]


def test_every_option_with_a_file_or_directory_is_recorded_as_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = cli.commands["simulate"]
    options = command.get_params(click.Context(command))
    found = {
        option.name
        for option in options
        if isinstance(option, click.Option)
        and option_arguments(option, "1") == [option.opts[-1], str(tmp_path / "1")]
    }
    brokers = {"kit", "keys", "ca", "cert", "key", "password_file"}
    of_the_sweep = {"run_dir", "resume", "config", "request"}
    assert found == {"init", "data", "heterogeneity", "dp_ledger", *brokers, *of_the_sweep}
