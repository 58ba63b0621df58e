"""A sweep as processes: what is begun, resumed and left alone, and which runs have failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.storage.run_directory import new_record
from fl_aggregator.storage.sweep_record import SweepRecord, SweptRun
from fl_mqtt.simulation import sweep
from fl_mqtt.simulation.sweep import SweepRunner, next_step
from fl_shared.cli import signals
from fl_shared.errors import UserError
from fl_shared.system.file_lock import FileLock

NAMES = ("a", "b", "c")


@pytest.fixture(autouse=True)
def _no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "end_on_signals", lambda _first: {})


def sweep_in(directory: Path) -> Path:
    runs = [SweptRun(name=name, setting={"lr": name}, seed=0, arguments=["--lr", name]) for name in NAMES]
    sweep.begin(directory, SweepRecord(runs=runs))
    return directory


def begun(directory: Path, *, ended: bool) -> None:
    directory.mkdir()
    record = new_record(Settings())
    if ended:
        record = record.model_copy(update={"ended": "2030-01-01T00:00:00+00:00"})
    (directory / "run.json").write_text(record.model_dump_json())


def test_a_finished_run_is_left_alone_one_that_was_cut_off_is_resumed_and_others_begin(
    tmp_path: Path,
) -> None:
    begun(tmp_path / "finished", ended=True)
    begun(tmp_path / "cut", ended=False)
    (tmp_path / "never").mkdir()
    assert [next_step(tmp_path / name) for name in ("finished", "cut", "never", "nowhere")] == [
        *("finished", "resume", "begin", "begin")
    ]
    run = SweptRun(name="cut", setting={}, seed=0, arguments=["--lr", "1"])
    directory = tmp_path / "cut"
    assert sweep.command(run, directory, "resume", ["--ca", "x"])[4:] == [
        *("--quiet", "--resume", str(directory), "--ca", "x")
    ]
    assert sweep.command(run, directory, "begin", ["--ca", "x"])[4:] == [
        *("--quiet", "--run-dir", str(directory), "--lr", "1")
    ]


def programs(monkeypatch: pytest.MonkeyPatch, **scripts: str) -> list[tuple[str, str]]:
    """Lets Python scripts stand for the runs. Returns the steps that were taken, by run."""
    steps: list[tuple[str, str]] = []

    def command(run: SweptRun, directory: Path, step: str, _broker: Sequence[str]) -> list[str]:
        steps.append((run.name, step))
        finish = f"import pathlib, json; d = pathlib.Path({str(directory)!r}); d.mkdir(exist_ok=True)"
        record = new_record(Settings()).model_copy(update={"ended": "2030-01-01T00:00:00+00:00"})
        finish += f"; (d / 'run.json').write_text({record.model_dump_json()!r}); print('finished: well')"
        return [sys.executable, "-c", scripts.get(run.name, finish)]

    monkeypatch.setattr(sweep, "command", command)
    return steps


@pytest.mark.parametrize("parallel", [1, 2, 9])
def test_a_run_that_fails_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: int
) -> None:
    directory = sweep_in(tmp_path / "sweep")
    said: list[str] = []
    steps = programs(monkeypatch, b="import sys; print('too few edges'); sys.exit(1)")
    outcome = SweepRunner(directory, parallel, tell=said.append).run()
    assert outcome.exit_code == 1
    assert outcome.failed == {"b": "exit code 1: too few edges"}
    assert steps == [(name, "begin") for name in NAMES]
    assert sorted(line.partition(": ")[2] for line in said) == [
        *("a: finished: well", "b: failed: exit code 1: too few edges", "c: finished: well")
    ]
    assert said[-1].startswith("3 of 3: ")

    steps = programs(monkeypatch)
    outcome = SweepRunner(directory, parallel, tell=said.append).run()
    assert (outcome.exit_code, outcome.failed) == (0, {})
    assert steps == [("b", "begin")]
    assert "2 of 3 runs are finished already" in said


def test_what_a_run_left_before_it_began_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = sweep_in(tmp_path / "sweep")
    (directory / "a" / "edges").mkdir(parents=True)
    programs(monkeypatch)
    assert SweepRunner(directory, 1, tell=lambda _: None).run().exit_code == 0
    assert not (directory / "a" / "edges").exists()


def test_only_runs_that_are_resumed_get_the_options_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others have them in their arguments, as they were when the sweep began."""
    directory = sweep_in(tmp_path / "sweep")
    begun(directory / "a", ended=False)
    monkeypatch.setenv("FL_ROUNDS", "33")
    monkeypatch.setenv("FL_PASSWORD", "secret")
    say = "import os; print(os.environ.get('FL_ROUNDS'), os.environ.get('FL_PASSWORD'))"
    programs(monkeypatch, a=say, b=say)
    said: list[str] = []
    SweepRunner(directory, 1, tell=said.append, recorded={"FL_ROUNDS"}).run()
    assert [line.partition(": ")[2] for line in said[:2]] == ["a: 33 secret", "b: None secret"]


def test_a_sweep_that_is_stopped_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = sweep_in(tmp_path / "sweep")
    steps = programs(monkeypatch, b="import time; time.sleep(1000)")
    runner = SweepRunner(directory, 1, tell=lambda _: runner.stop())
    outcome = runner.run()
    assert outcome.exit_code == 130
    assert [name for name, _ in steps] in (["a"], ["a", "b"])


def test_two_processes_do_not_run_one_sweep(tmp_path: Path) -> None:
    directory = sweep_in(tmp_path / "sweep")
    lock = FileLock(directory / ".lock")
    with pytest.raises(UserError, match="another process runs this sweep"):
        SweepRunner(directory, 1).run()
    lock.release()
