"""``series`` over a real broker: a forecast in its unit, and bad tables at one of the edges."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.run_files import Outline, page_of

pytestmark = [pytest.mark.broker, pytest.mark.edge]

OPTIONS = ("--task-option", "target=power", "--task-option", "unit=kW", "--task-option", "window=12")


def write(path: Path, seed: int, column: str = "power") -> None:
    """A table with a rhythm of 12 steps."""
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 0.1, 200)
    rows = 20 + 5 * np.sin(2 * np.pi * np.arange(200) / 12) + noise
    path.write_text("\n".join([column, *(f"{row:.4f}" for row in rows)]) + "\n")


def test_simulate_forecasts_in_the_unit_of_the_target(tmp_path: Path) -> None:
    for name in ("a", "b", "test"):
        write(tmp_path / "data" / f"{name}.csv", ord(name[0]))
    run = programs.simulate(
        tmp_path, "--task", "series", *OPTIONS, "--data", str(tmp_path / "data"), "--partition", "natural",
        "--clients", "2", "--per-round", "2", "--rounds", "4", "--epochs", "3",
    )  # fmt: skip
    with run:
        run.ends_well()
    lines = programs.history(tmp_path)
    assert [line["participants"] for line in lines] == [["0", "1"]] * 4
    assert lines[-1]["metrics"]["mae"] < lines[0]["metrics"]["mae"] < 5
    assert (run.result["primary"], run.result["split"]) == ("mae", "test")
    assert " kW (test)" in run.out
    text = Outline(page_of(tmp_path, tmp_path / "run")).text
    assert " kW" in text[text.index("Learning") :]


def test_a_table_that_does_not_fit_ends_its_edge_in_one_line_and_disturbs_no_other(
    shared_mosquitto: Mosquitto, stack: ExitStack, tmp_path: Path
) -> None:
    prefix, url = ("--prefix", "series/bad"), shared_mosquitto.url
    task = ("--task", "series?target=power&unit=kW&window=12")
    write(tmp_path / "good" / "a.csv", 1)
    write(tmp_path / "bad" / "a.csv", 2, column="current")
    with programs.edges(tmp_path / "1", url, "1", *prefix, *task, "--data", str(tmp_path / "bad")) as bad:
        assert bad.wait() == 2
    words = "a.csv: row 1: column 'power' (target) is missing; the file has: current"
    assert [words in line for line in bad.err.splitlines() if "current" in line] == [True]
    assert "Traceback" not in bad.err
    good = stack.enter_context(
        programs.edges(tmp_path / "0", url, "0", *prefix, *task, "--data", str(tmp_path / "good"))
    )
    run = programs.aggregator(
        tmp_path, url, *prefix, "--task", "series", *OPTIONS, "--partition", "own", "--clients", "1",
        "--per-round", "1", "--rounds", "2",
    )  # fmt: skip
    with run:
        run.ends_well()
    assert [line["participants"] for line in programs.history(tmp_path)] == [["0"]] * 2
    assert good.running()
