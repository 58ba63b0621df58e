"""`fl_mqtt.simulate` in this process: what it gives back, and what it leaves as it was."""

from __future__ import annotations

import logging
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fl_edge.tasks.digits_mlp import DigitsMlpTask
from fl_mqtt import Result, RunFailed, Task, UserError, simulate
from tests.support import programs
from tests.support.library_task import Sum

SMALL: dict[str, Any] = {"clients": 3, "rounds": 2, "epochs": 2, "wait": 60.0}

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges", "forked_children")]


def state_of_process() -> tuple[object, ...]:
    """What a library has to leave alone."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    root = logging.getLogger()
    mask = os.umask(0o022)
    os.umask(mask)
    environment = dict(os.environ)
    return (*handlers, tuple(root.handlers), root.level, threading.excepthook, Path.cwd(), mask, environment)


def check(result: Result, run_dir: Path) -> None:
    assert (result.outcome, result.version, result.primary, result.split) == ("finished", 2, "loss", "test")
    assert [line["version"] for line in result.history] == [1, 2]
    assert result.metrics["loss"] == result.history[-1]["metrics"]["loss"] < 1
    assert result.run_dir == run_dir
    stored = load_file(run_dir / "model.safetensors")
    assert set(result.model) == set(stored) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    for name, array in result.model.items():
        np.testing.assert_array_equal(array, stored[name])
    assert set(result.edges) == {"0", "1", "2"}
    for edge in result.edges.values():
        assert (edge.rounds, edge.examples) == (2, 100)
        assert edge.before["loss"] > 0
        assert edge.after["loss"] > 0


def test_runs_after_each_other_and_two_at_once_leave_the_process_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(Sum):
        """Cannot be imported by the edges."""

    children = programs.Children()
    monkeypatch.chdir(tmp_path)  # the default directory of runs is below it
    before, threads = state_of_process(), set(threading.enumerate())
    check(simulate(Local, run_dir=tmp_path / "first", **SMALL), tmp_path / "first")
    both = threading.Barrier(2)

    def run(task: type[Sum]) -> Result:
        both.wait(60)
        return simulate(task, **SMALL)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, [Local, Local]))
    for result in results:
        check(result, result.run_dir)
    assert len({result.run_dir for result in results}) == 2
    assert state_of_process() == before
    assert set(threading.enumerate()) == threads
    assert not children.started()
    assert capfd.readouterr() == ("", "")


def test_the_edges_stay_for_predictions_and_the_log_is_for_people(tmp_path: Path) -> None:
    children = programs.Children()
    lines: list[str] = []
    with simulate(Sum, run_dir=tmp_path / "run", log=lines.append, stay=True, **SMALL) as result:
        check(result, tmp_path / "run")
        answer = result.predict([0.5, 0.25])
        assert answer == {"value": pytest.approx(0.75, abs=0.5), "unit": "l"}
        with pytest.raises(RunFailed, match=r"edge \d could not answer"):
            result.predict(b"no json")
    assert lines[0].startswith("dashboard: http://127.0.0.1:")
    assert [line.partition(",")[0] for line in lines[1:]] == [
        "round 1: version 1 of 2",
        "round 2: version 2 of 2",
    ]
    assert not children.started()


def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    children = programs.Children()

    class Broken(DigitsMlpTask):
        """Cannot be created."""

        def __init__(self, *_: Any) -> None:
            raise RuntimeError("not here")

    mistakes: list[tuple[str | type[Task], dict[str, Any], str]] = [
        (
            Broken,
            {},
            r"^task 'local_task:Broken' cannot be created: RuntimeError: not here",
        ),
        ("digits-mlp", {"task_option": {"x": 1}}, "option 'x' is unknown, expected one of: hidden"),
        ("digits-mlp", {"data": tmp_path / "nowhere"}, "'data': Directory .*nowhere' does not exist"),
        ("digits-mlp", {"require_sealed": True}, "require_sealed: sealing needs a kit"),
        ("digits-mlp", {"kit": "x.zip"}, "kit: a kit is for one account"),
        # Only an edge can tell, in the run.
        ("digits-mlp", {"target": "mae=1"}, "target: the task 'digits-mlp' has no metric 'mae'"),
    ]
    for task, options, said in mistakes:
        values: dict[str, Any] = {**SMALL, **options}
        with pytest.raises(UserError, match=said) as error:
            simulate(task, run_dir=tmp_path / "run", **values)
        assert "\n" not in str(error.value)
        if "target" not in options:
            assert not (tmp_path / "run").exists(), said
    assert not children.started()


def test_a_resumed_run_keeps_its_settings(tmp_path: Path) -> None:
    run = tmp_path / "run"
    simulate(Sum, run_dir=run, **SMALL)
    with pytest.raises(UserError, match="rounds cannot be combined with resume: settings cannot change"):
        simulate(Sum, resume=run, rounds=5)
    with pytest.raises(UserError, match=r"^resume .*run: run \w+ is finished \(2 of 2 versions\)"):
        simulate(Sum, resume=run)


def test_a_run_whose_edges_fail_raises_and_says_where_it_is(tmp_path: Path) -> None:
    class Failing(Sum):
        """Cannot train."""

        def train(self, *_: Any) -> Any:
            raise RuntimeError("out of order")

    with pytest.raises(RunFailed) as error:
        simulate(Failing, run_dir=tmp_path / "run", **{**SMALL, "deadline": 1.0, "wait": 1.0})
    assert error.value.__notes__ == [f"the run is in {tmp_path / 'run'}"]
