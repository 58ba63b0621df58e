"""A cell of the learning benchmark is a run of the product: what its line has."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.broker, pytest.mark.edge]
learning = pytest.importorskip("learning")
plan = pytest.importorskip("learning_cells")


@pytest.mark.long
@pytest.mark.usefixtures("forked_children")
def test_a_cell_becomes_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from fl_edge.tasks.digits import DigitsTask

    monkeypatch.setitem(learning.TASKS, "digits", DigitsTask)
    options = {"clients": 2, "per_round": 2, "rounds": 2, "epochs": 1, "lr": 0.05, "seed": 3, "holdout": 0.2}
    cell = plan.Cell("A/iid/fedavg", 3, "digits", options)
    line = learning.run(cell, None, workers=1)
    assert (line["cell"], line["seed"], line["settings"]) == (cell.name, cell.seed, cell.digest)
    assert (line["rounds"], line["evaluated"]) == (2, 2)
    assert [version for version, _ in line["curve"]] == [1, 2]
    assert line["last"] == pytest.approx(sum(value for _, value in line["curve"]) / 2, abs=1e-4)
    assert set(line["edges"]) == {"0", "1"}
    assert min(line["bytes"].values()) > 0
    assert line["cpu_seconds"] > 0
    assert plan.line_of(cell, [line]) == line


KILLED_AFTER_A_ROUND = """
import os, signal, sys
from pathlib import Path
import learning, learning_cells as plan
from fl_edge.tasks.digits import DigitsTask

learning.TASKS["digits"] = DigitsTask
learning.say = lambda text: "round 1" in text and os.kill(os.getpid(), signal.SIGKILL)
learning.run(plan.Cell("A/iid/fedavg", 3, "digits", eval(sys.argv[1])), None, 1, Path(sys.argv[2]))
"""


@pytest.mark.long
@pytest.mark.usefixtures("forked_children")
def test_a_cell_that_was_killed_is_resumed_to_the_same_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fl_edge.tasks.digits import DigitsTask

    monkeypatch.setitem(learning.TASKS, "digits", DigitsTask)
    options = {"clients": 2, "per_round": 2, "rounds": 3, "epochs": 1, "lr": 0.05, "seed": 3}
    cell = plan.Cell("A/iid/fedavg", 3, "digits", options)
    whole = learning.run(cell, None, workers=1)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED_AFTER_A_ROUND, repr(options), str(tmp_path)]
    killed = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    resumed = learning.run(cell, None, workers=1, runs=tmp_path)
    assert resumed["curve"] == whole["curve"]
    assert "seconds" not in resumed, "this process has not seen all of the run"


def test_a_run_that_fails_is_a_line_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, run_dir: Path, **_of_run: object) -> None:
        run_dir.mkdir()
        record = {"outcome": "committed", "version": 1, "split": "test", "metrics": {"accuracy": 0.12}}
        (run_dir / "history.jsonl").write_text(json.dumps(record) + "\n")
        raise learning.RunFailed("3 rounds in a row were abandoned\nmore")

    monkeypatch.setattr(learning, "simulate", fail)
    cell = plan.all_cells(0.01)[0]
    line = learning.run(cell, None, workers=1)
    assert line["failed"] == "3 rounds in a row were abandoned"
    assert line["reached"] == [(1, 0.12)]
    assert "last" not in line, "a run that failed counts in no mean"
    assert plan.line_of(cell, [line]) == line
