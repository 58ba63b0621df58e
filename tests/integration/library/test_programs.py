"""Programs that use the library: a script with a class of its own, and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fl_aggregator.round.phases import Stopped
from fl_aggregator.server import launch
from fl_mqtt import UserError, simulate
from tests.support import programs
from tests.support.wait import PATIENCE, wait_until

ROOT = Path(__file__).parents[3]
SCRIPT = """

import helper_beside

FACTOR = 2.0

class Mine(Sum):
    def load_test(self, data_dir):
        examples = super().load_test(data_dir)
        return Examples(examples.inputs, examples.labels * FACTOR * helper_beside.ONE)

if __name__ == "__main__":
    import functools, sys
    from fl_mqtt import simulate
    settings = json.loads(sys.argv[1])
    try:
        result = simulate(Mine, **settings, log=functools.partial(print, flush=True))
    except KeyboardInterrupt:
        print("interrupted")
        raise SystemExit(7)
    print(json.dumps(result.metrics))
"""
"""Comes after the text of a module with the class Sum."""

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges")]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A program in a directory of its own, with a module that it imports."""
    directory = tmp_path / "program"
    directory.mkdir()
    (directory / "helper_beside.py").write_text("ONE = 1.0\n")
    base = (ROOT / "tests" / "support" / "library_task.py").read_text()
    (directory / "script.py").write_text(base + SCRIPT)
    return directory / "script.py"


def python(directory: Path, *code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *code],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=100 * PATIENCE,
        check=False,
    )


def test_a_class_of_main_with_what_it_refers_to(tmp_path: Path, script: Path) -> None:
    settings = {"clients": 2, "rounds": 2, "run_dir": str(tmp_path / "run"), "wait": 60}
    done = python(tmp_path, str(script), json.dumps(settings))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["settings"]["task"] == "local_task:Mine"
    loss = json.loads(done.stdout.splitlines()[-1])["loss"]
    assert loss > 0.5, "the labels of the test split are twice the sum, which is 1 on average"


@pytest.mark.long
def test_ctrl_c_stops_the_run_cleanly_and_the_program_resumes_it(tmp_path: Path, script: Path) -> None:
    run = tmp_path / "run"
    settings = {"clients": 2, "rounds": 100_000, "evaluate_every": 1000, "run_dir": str(run), "wait": 60}
    rounds = 0
    for name, given in (("first", settings), ("second", {"resume": str(run)})):
        with programs.Program(tmp_path / name, "python", str(script), json.dumps(given)) as program:
            wait_until(lambda out=program, n=rounds: f"round {n + 2}: " in out.out, 60, "rounds")  # type: ignore[misc]
            children = programs.descendants(program.pid)
            program.send(signal.SIGINT)
            assert program.wait(60) == 7, program.output
            assert program.out.endswith("\ninterrupted\n")
            wait_until(lambda pids=children: not programs.alive(pids), 10, "broker and edges have ended")  # type: ignore[misc]
        rounds = len((run / "history.jsonl").read_text().splitlines())
        with closing(launch.resume(run, simulated=True)) as resumed:
            assert isinstance(resumed.snapshot.state.phase, Stopped), "the run was not only torn down"
    assert not list(run.rglob("*.py")), "no code is taken from a run directory"
    assert not list(run.rglob("*.pickle"))
    with pytest.raises(UserError, match=r"^task 'digits': the run in .* trains 'local_task:Mine'"):
        simulate("digits", resume=run)
    done = programs.run("fl-mqtt", "simulate", "--resume", str(run), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "fl-mqtt: the run's task is the class Mine of a Python program: "
        f"resume it there, with fl_mqtt.simulate(Mine, resume='{run}')"
    )
