"""The report about a sweep: mean ± deviation of each setting, curves with bands, and what is not finished."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.storage.sweep_record import SweepRecord, SweptRun
from fl_aggregator.tools.report.sweep import mean_and_deviation, read_sweep, results, spread_text
from tests.support.run_files import SETTINGS, line, page_of, report, write

ENDED = "2030-01-01T00:01:00+00:00"


def run(directory: Path, name: str, last: float, **record: Any) -> None:
    edges = {"edges_mean": last - 0.1, "edges_worst": last - 0.2}
    lines = [
        line(1, metrics={"accuracy": last / 2, "loss": 1.0}),
        line(2, metrics={"accuracy": last, "loss": 0.5, **edges}),
    ]
    write(directory / name, lines, record={"ended": ENDED, "settings": SETTINGS} | record)


def sweep(tmp_path: Path) -> Path:
    directory = tmp_path / "sweep"
    directory.mkdir()
    runs = [
        SweptRun(name=f"{name}_seed={seed}", setting={"lr": lr}, seed=seed, arguments=[])
        for name, lr in (("lr=0.1", "0.1"), ("other", "<b>"))
        for seed in (0, 1, 2)
    ]
    SweepRecord(runs=runs).write(directory)
    for seed, accuracy in enumerate((0.6, 0.7, 0.8)):
        run(directory, f"lr=0.1_seed={seed}", accuracy)
    run(directory, "other_seed=0", 0.9)
    run(directory, "other_seed=1", 0.1, ended=None)
    return directory


def test_a_setting_has_mean_and_deviation_of_its_finished_runs(tmp_path: Path) -> None:
    headings, rows = results(read_sweep(sweep(tmp_path)))
    assert headings == [
        "setting",
        "finished",
        "accuracy",
        "best",
        "loss",
        "mean of the edges",
        "worst edge",
        "time",
    ]
    assert rows[0][:3] == ["lr=0.1", "3 of 3", "0.7000 ± 0.1000"]
    assert rows[0][6] == "0.5000 ± 0.1000"
    assert rows[1][:3] == ["lr=<b>", "1 of 3", "0.9000"]


def test_the_deviation_is_that_of_a_sample() -> None:
    assert mean_and_deviation([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_and_deviation([1.5]) == (1.5, None)
    assert spread_text([20.0, 22.0], "kWh") == "21.00 kWh ± 1.4142 kWh"
    assert spread_text([], "kWh") == "–"


def test_the_page_has_bands_tables_and_says_what_is_not_finished(tmp_path: Path) -> None:
    page = page_of(tmp_path, sweep(tmp_path))
    assert "settings: 2 · runs: 6 · finished: 4" in page
    assert "0.7000 ± 0.1000" in page
    assert "not finished: 2 of 3 versions" in page
    assert "not begun" in page
    assert "lr=<b>" not in page
    (drawn,) = re.findall(
        r"<svg[^>]*aria-label=\"accuracy by round, mean and deviation.*?</svg>", page, re.DOTALL
    )
    assert "At the end lr=0.1: 0.7000 ± 0.1000; lr=&lt;b&gt;: 0.9000 ± 0.0000" in drawn
    assert not re.findall(r"#[0-9a-f]{6}", drawn), "the colours are those of the page, light or dark"
    assert len(re.findall(r"FillBetween|PolyCollection", drawn)) >= 1, "a band"


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_is_not_compared_with_others_and_its_rounds_go_into_a_table(tmp_path: Path) -> None:
    directory = sweep(tmp_path)
    assert "expected a sweep on its own" in str(report(directory, directory / "other_seed=0").exception)
    done = report(directory, "--out", "-", "--csv", tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 1 + 5 * 2
    assert "lr=0.1_seed=2,2," in (tmp_path / "out.csv").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_that_has_just_begun_has_a_page(tmp_path: Path) -> None:
    directory = tmp_path / "sweep"
    directory.mkdir()
    SweepRecord(runs=[SweptRun(name="seed=0", setting={}, seed=0, arguments=[])]).write(directory)
    page = page_of(tmp_path, directory)
    assert "No run has finished yet." in page
    assert "settings: 1 · runs: 1 · finished: 0" in page
