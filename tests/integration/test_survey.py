"""A survey over a real broker prints what the tables of all edges have, and each edge decides for itself."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.schemas import checked
from tests.support.tables import write_csv

pytestmark = [pytest.mark.broker, pytest.mark.edge]

EDGES = 6
TASK = ("--task", "tabular", "--task-option", "target=state")


def rows_of(number: int) -> list[tuple[object, ...]]:
    rng = np.random.default_rng(number)
    return [(round(float(rng.normal(50 + number, 9)), 2), rng.choice(["ill", "well"])) for _ in range(40)]


@pytest.mark.parametrize("masked", [False, True])
def test_it_prints_what_the_tables_have(tmp_path: Path, shared_mosquitto: Mosquitto, masked: bool) -> None:
    prefix = ("--prefix", f"survey/{'masked' if masked else 'plain'}")
    own = {2: ("--survey", "no"), 3: ("--survey", "each", "--survey-least", "4"), 5: ("--survey-least", "6")}
    asked = (
        *("--clients", str(EDGES), "--partition", "own", "--least", "4", "--json"),
        *(("--masked",) if masked else ()),
    )
    with ExitStack() as stack:
        for number in range(EDGES):
            write_csv(tmp_path / f"data-{number}" / "t.csv", ("age", "state"), rows_of(number))
            more = own.get(number, ("--survey-least", "4"))
            stack.enter_context(
                programs.edges(
                    tmp_path / f"edge-{number}", shared_mosquitto.url, str(number), *prefix, "--light",
                    "--data", str(tmp_path / f"data-{number}"), *more,
                )
            )  # fmt: skip
        common = ("--broker", shared_mosquitto.url, "--run-dir", str(tmp_path / "run"))
        run = stack.enter_context(
            programs.Program(tmp_path, "fl-aggregator", "survey", *common, *prefix, *TASK, *asked)
        )
        run.ends_well()
    found = checked("fl-aggregator survey", run.out)
    assert "edge 2 does not take part: this edge does not take part in surveys (--survey no)" in run.err
    assert "edge 5 does not take part: the survey has sums of 4 edges, expected at least 6" in run.err
    rows = [row for number in (0, 1, 3, 4) for row in rows_of(number)]
    ages = np.array([row[0] for row in rows], np.float64)
    states = [row[1] for row in rows]
    assert (found["edges"], found["examples"], found["masked"]) == (4, len(rows), masked)
    assert found["labels"]["shown"] == {state: states.count(state) for state in ("ill", "well")}
    age = found["numbers"]["age"]
    assert age["mean"] == pytest.approx(ages.mean(), rel=1e-6)
    assert age["deviation"] == pytest.approx(ages.std(), rel=1e-6)
    assert set(found["figures"]) == (set() if masked else {"3"})
    again = programs.run("fl-aggregator", "survey", str(tmp_path / "run"), "--json")
    assert checked("fl-aggregator survey", again.stdout) == found
    report = programs.run("fl-aggregator", "report", str(tmp_path / "run"), "--out", str(tmp_path / "r.html"))
    assert report.returncode == 0, report.stderr
    assert f"{len(rows)} examples on 4 edges" in (tmp_path / "r.html").read_text()


def test_it_prints_what_noise_leaves(tmp_path: Path, shared_mosquitto: Mosquitto) -> None:
    prefix = ("--prefix", "survey/private")
    asked = (
        *("--clients", "5", "--partition", "own", "--json", "--range", "age=0:100"),
        *("--dp", "central", "--dp-noise", "0.01", "--dp-delta", "1e-5"),
    )
    with ExitStack() as stack:
        for number in range(5):
            write_csv(tmp_path / f"data-{number}" / "t.csv", ("age", "state"), rows_of(number))
            stack.enter_context(
                programs.edges(
                    tmp_path / f"edge-{number}", shared_mosquitto.url, str(number), *prefix, "--light",
                    "--data", str(tmp_path / f"data-{number}"), "--survey", "each",
                )
            )  # fmt: skip
        common = ("--broker", shared_mosquitto.url, "--run-dir", str(tmp_path / "run"))
        run = stack.enter_context(
            programs.Program(tmp_path, "fl-aggregator", "survey", *common, *prefix, *TASK, *asked)
        )
        run.ends_well()
    assert "the noise gives each share a standard error of 0.45 %, if all 5 edges take part" in run.err
    found = checked("fl-aggregator survey", run.out)
    rows = [row for number in range(5) for row in rows_of(number)]
    mean = float(np.mean([float(str(row[0])) for row in rows]))
    age = found["numbers"]["age"]
    assert found["edges"] == 5
    assert found["share_error"] == pytest.approx(0.01 * np.sqrt(5) / 5)
    assert abs(age["mean"]["value"] - mean) <= 4 * age["mean"]["error"]
    shown = programs.run("fl-aggregator", "survey", str(tmp_path / "run"))
    assert "survey of 5 edges with differential privacy; task tabular" in shown.stdout
    report = programs.run("fl-aggregator", "report", str(tmp_path / "run"), "--out", str(tmp_path / "r.html"))
    assert report.returncode == 0, report.stderr
    page = (tmp_path / "r.html").read_text()
    assert "5 edges, with differential privacy." in page
    assert "What the models tell about one edge" in page
    assert "The noise gives each share a standard error of 0.45 %" in page
    assert "learnt" not in page


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--clients", "3"), "--clients 3: a survey has at least --least (5) edges, and at most 16384"),
        (("--range", "age=0"), "--range age=0: expected LOW:HIGH, two numbers, for example age=0:120"),
        (("--dp", "central"), "--dp: needs --dp-epsilon, the budget of an edge, or --dp-noise"),
        (("--dp", "central", "--dp-noise", "2", "--cells", "1"), "--cells: has no meaning with --dp"),
    ],
)
def test_mistakes_are_one_clear_line(
    tmp_path: Path, shared_mosquitto: Mosquitto, arguments: tuple[str, ...], problem: str
) -> None:
    common = ("--broker", shared_mosquitto.url, "--run-dir", str(tmp_path / "run"))
    done = programs.run("fl-aggregator", "survey", *common, *TASK, *arguments)
    assert done.returncode == 2
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_training_is_no_survey(tmp_path: Path) -> None:
    done = programs.run("fl-aggregator", "survey", str(tmp_path))
    assert (done.returncode, done.stderr) == (
        2, f"fl-aggregator: DIR {tmp_path}: contains no run (no run.json), expected a run directory\n",
    )  # fmt: skip
