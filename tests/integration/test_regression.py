"""A task that is no classification, with metrics of its own, from the edges' processes to the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.support import programs, rogue_tasks
from tests.support.run_files import Outline, page_of

RUN = ("--task", "consumption", "--clients", "2", "--epochs", "1", "--wait", "60")

pytestmark = [pytest.mark.broker, pytest.mark.edge]


@pytest.fixture(autouse=True)
def _task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rogue_tasks.install_tasks(
        tmp_path, monkeypatch, {"consumption": "tests.support.regression_task:Consumption"}
    )


def test_the_best_version_has_the_lowest_error_and_all_numbers_their_unit(tmp_path: Path) -> None:
    with programs.simulate(tmp_path, *RUN, "--rounds", "4") as run:
        run.ends_well()
    lines, directory = programs.history(tmp_path), tmp_path / "run"
    errors = [round(line["metrics"]["mae"], 3) for line in lines]
    assert errors == [13.0, 6.0, 1.0, 6.0]
    assert load_file(directory / "best.safetensors")["bias"] == pytest.approx(21), "version 3"
    assert load_file(directory / "model.safetensors")["bias"] == pytest.approx(14), "version 4"
    for line in lines:
        assert line["split"] == "test"
        assert [metric["name"] for metric in line["declared"]] == ["mae", "r2"]
        assert "r2" not in line["metrics"], "it is not a number there"
        assert {"before_r2", "after_r2", "after_mae"} <= line["metrics"].keys(), (
            "and on the holdouts it is one"
        )
    result = run.result
    assert (result["primary"], result["split"], result["metrics"]["mae"]) == (
        "mae",
        "test",
        pytest.approx(6.0),
    )
    assert "mae 6.0000 kWh (test)" in run.out
    assert "the version with the best mae (1.0000 kWh)" in run.out
    assert re.search(r"round 1: version 1 of 4, 2 of 2 in, mae 13\.00 kWh, loss 169\.\d\d \(test\)", run.err)
    log = (directory / "fleet.log").read_text()
    assert "task consumption: the metric r2 is not finite on this edge's examples: leaving it out" in log
    assert "%" not in run.out + run.err + log

    page = Outline(page_of(tmp_path, directory))
    assert "mae on test (best 1.0000 kWh)" in page.text
    assert "13.00 kWh" in page.text
    assert "%" not in page.text[page.text.index("Learning") :]


@pytest.mark.long
def test_a_target_of_an_error_is_reached_from_above(tmp_path: Path) -> None:
    with programs.simulate(tmp_path, *RUN, "--rounds", "9", "--target", "mae=1.5") as run:
        run.ends_well()
    assert len(programs.history(tmp_path)) == 3
    assert "mae 1.0000 kWh (test) (target mae=1.5 reached)" in run.out


def test_a_target_that_the_task_does_not_have_is_the_users_mistake(tmp_path: Path) -> None:
    with programs.simulate(tmp_path, *RUN, "--rounds", "9", "--target", "accuracy=0.9") as run:
        assert run.wait() == 2
    assert "--target: the task 'consumption' has no metric 'accuracy'; it has: loss, mae, r2" in run.out
    assert "resume with" not in run.out
    assert not [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
