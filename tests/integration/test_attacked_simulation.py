"""A simulation with attackers: what they do to a strategy, and that the run says so everywhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open

from fl_aggregator.tools.report.page import page
from fl_aggregator.tools.report.reading import read_run_report
from fl_aggregator.tools.report.spreadsheet import csv_text
from tests.support import programs

RUN = (
    *("--task", "digits-mlp", "--clients", "10", "--rounds", "4", "--epochs", "2", "--seed", "3"),
    *("--deadline", "120", "--wait", "120"),
)
SAID = "4 of 10 edges attack (0, 1, 2, 3): sign-flip × 5"

pytestmark = [pytest.mark.broker, pytest.mark.edge]


def accuracy(simulated: programs.Program) -> float:
    with simulated as run:
        run.ends_well()
    assert run.result["attack"] == SAID
    return float(run.result["metrics"]["accuracy"])


@pytest.mark.usefixtures("light_edges")
def test_four_of_ten_break_the_mean_but_not_the_median(tmp_path: Path) -> None:
    attacked = (*RUN, "--attack", "sign-flip:factor=5,edges=4")
    assert accuracy(programs.simulate_virtually(tmp_path / "mean", *attacked)) < 0.3
    assert accuracy(programs.simulate(tmp_path / "median", *attacked, "--strategy", "median")) > 0.6

    directory = tmp_path / "median" / "run"
    record = json.loads((directory / "run.json").read_text())
    attack = {"specification": "sign-flip:factor=5,edges=4", "summary": SAID, "edges": ["0", "1", "2", "3"]}
    assert record["fleet"]["attack"] == attack
    with safe_open(directory / "model.safetensors", framework="numpy") as model:
        assert model.metadata()["attack"] == SAID
    report = read_run_report(directory)
    assert f"A test: {SAID}." in page([report])
    assert csv_text([report]).splitlines()[1].endswith(f',"{SAID}"')


@pytest.mark.long
@pytest.mark.usefixtures("light_edges")
def test_the_accuracies_that_the_document_says(tmp_path: Path) -> None:
    """Those of the two commands of ``docs/strategies.md``, which say what becomes of them."""
    text = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
    lines = re.findall(r"^fl-aggregator simulate --virtual (.*?) +#.*?(0\.\d\d)\)?$", text, re.MULTILINE)
    assert len(lines) == 2
    for number, (options, said) in enumerate(lines):
        found = accuracy(programs.simulate_virtually(tmp_path / str(number), *options.split()))
        assert found == pytest.approx(float(said), abs=0.03)  # other libraries, other last bits


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--attack", "sign-flip:edges=11"), "--attack sign-flip:edges=11: expected 1 to 10"),
        pytest.param(
            ("--attack", "label-flip:edges=1", "--task", "tests.support.regression_task:Consumption"),
            "--attack label-flip: task consumption has no classes to flip",
            marks=pytest.mark.long,
        ),
    ],
)
def test_an_attack_that_is_not_possible_ends_with_one_line(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    with programs.simulate(tmp_path, *RUN, *options) as run:
        assert run.wait() == 2
    assert said in run.err.splitlines()[-1]
