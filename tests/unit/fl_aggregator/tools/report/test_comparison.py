"""The comparison of several runs, and the table of rounds as CSV."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="pip install 'fl-mqtt[report]'")

from fl_aggregator.configuration.values import Target
from fl_aggregator.tools.report import comparison
from fl_aggregator.tools.report.reading import read_run_report
from fl_shared.errors import UserError
from tests.support.run_files import SETTINGS, Outline, line, page_of, report, write

pytestmark = pytest.mark.usefixtures("undrawn")


def test_runs_are_compared(tmp_path: Path) -> None:
    slow = write(
        tmp_path / "slow", [line(n, metrics={"accuracy": 0.1 * n, "loss": 2.0}) for n in range(1, 8)]
    )
    fast = write(tmp_path / "fast", [line(1), line(2), line(3)], record={"settings": {**SETTINGS, "lr": 0.5}})
    page = Outline(page_of(tmp_path, slow, fast))
    assert "The target: accuracy 0.6." in page.text, "the best value that both have reached"
    words = page.text.split("\n")
    assert "6 versions" in words
    assert "3 versions" in words
    differ = page.text[page.text.index("Settings that differ") :]
    assert re.search(r"lr\s+0\.05\s+0\.5\s", differ)
    assert "per-round" not in differ[: differ.index("on its own")], "what is the same is not listed"
    overlaid = [a["aria-label"] or "" for n, a in page.tags if n == "svg"][:4]
    assert all("slow: " in said and "fast: " in said for said in overlaid)


def test_a_target_that_was_set_is_the_one_to_compare_by(tmp_path: Path) -> None:
    runs = [
        read_run_report(
            write(
                tmp_path / name,
                [line(1), line(2)],
                record={"settings": {**SETTINGS, "target": f"accuracy={target}"}},
            )
        )
        for name, target in (("a", 0.4), ("b", 0.9))
    ]
    assert comparison.comparison_target(runs) == Target("accuracy", 0.4)
    assert [comparison.versions_to_reach(run, Target("accuracy", 0.4)) for run in runs] == [2, 2]
    assert comparison.versions_to_reach(runs[0], Target("accuracy", 0.9)) is None
    runs[0].rounds = []
    runs[0].record = runs[1].record = {}
    assert comparison.comparison_target(runs) is None


MAE = [{"name": "mae", "higher_is_better": False, "unit": "kWh", "minimum": 0.0}]


def test_runs_are_compared_in_the_direction_and_unit_of_their_metric(tmp_path: Path) -> None:
    first, second = (
        write(
            tmp_path / name,
            [line(n, metrics={"mae": mae, "loss": 1.0}, declared=MAE) for n, mae in enumerate(errors, 1)],
        )
        for name, errors in (("first", (30.0, 21.853, 25.0)), ("second", (40.0, 23.04)))
    )
    page = Outline(page_of(tmp_path, first, second))
    assert "The target: mae 24." in page.text, "the best value that both have reached, rounded up"
    assert "21.85 kWh" in page.text
    assert page.text.split("\n").count("2 versions") == 2
    assert "%" not in page.text[page.text.index("Results") : page.text.index("on its own")]
    assert "cannot be compared" not in page.text


def test_runs_whose_splits_or_metrics_differ_are_marked(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", [line(1)]), write(tmp_path / "b", [line(1, split="holdout")])
    page = Outline(page_of(tmp_path, a, b))
    assert "cannot be compared: they were evaluated on different splits." in page.text
    assert "The target" not in page.text
    assert any("b (holdout)" in (a["aria-label"] or "") for name, a in page.tags if name == "svg")
    c = write(tmp_path / "c", [line(1, metrics={"mae": 1.0}, declared=MAE)])
    page = Outline(page_of(tmp_path, a, c))
    assert "cannot be compared: their primary metrics differ." in page.text
    assert "mae 1.0000 kWh" in page.text


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    for parent in ("one", "two"):
        (tmp_path / parent).mkdir()
    runs = [read_run_report(write(tmp_path / parent / "run", [line(1)])) for parent in ("one", "two")]
    comparison.assign_unique_names(runs)
    assert [run.name for run in runs] == ["one/run", "two/run"]
    assert isinstance(report(runs[0].path, runs[0].path).exception, UserError)


def test_csv_has_a_row_a_round(tmp_path: Path) -> None:
    a = write(
        tmp_path / "a", [line(1), line(2, outcome="abandoned", version=None, reason="=1+1", metrics={})]
    )
    names = {"=1+1": 0.1, " @SUM(A1)": 0.2, "two\nlines": 0.3}
    b = write(tmp_path / "b", [line(1, missing={"3": "late"}, metrics={"accuracy": 0.9, "f1": 0.8, **names})])
    done = report(a, b, "--out", "-", "--csv", tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [(row["run"], row["round"], row["version"]) for row in rows] == [
        ("a", "1", "1"),
        ("a", "2", ""),
        ("b", "1", "1"),
    ]
    assert rows[0]["accuracy"] == "0.2"
    assert rows[0]["f1"] == rows[1]["accuracy"] == ""
    assert rows[2]["f1"] == "0.8"
    assert rows[1]["reason"] == "'=1+1", "no spreadsheet computes it"
    assert {"'=1+1", "' @SUM(A1)", "two lines"} <= rows[0].keys(), "not in the head either"
    assert rows[2]["missing_ids"] == "3"
    assert rows[0]["seconds_collecting"] == "1.5"
    assert not (tmp_path / "-").exists()


def test_the_heads_of_csv_have_the_units_of_metrics(tmp_path: Path) -> None:
    def declared(unit: str) -> list[dict[str, object]]:
        return [
            {"name": "mae", "higher_is_better": False, "unit": unit},
            {"name": "accuracy", "higher_is_better": True, "unit": "%"},
        ]

    measured = {"mae": 2.5, "before_mae": 3.5, "accuracy": 0.9, "after_accuracy": 0.8, "loss": 0.1}
    runs = [
        write(tmp_path / unit, [line(1, declared=declared(unit), metrics=measured)])
        for unit in ("kWh", "=1+1")
    ]
    done = report(*runs, "--out", "-", "--csv", tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    first, second = csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text()))
    assert (first["mae [kWh]"], first["before_mae [kWh]"], first["mae [=1+1]"]) == ("2.5", "3.5", "")
    assert (second["mae [kWh]"], second["mae [=1+1]"]) == ("", "2.5")
    assert first["accuracy"] == "0.9", "a fraction, not a percentage"
    assert (first["after_accuracy"], first["loss"]) == ("0.8", "0.1")
    assert "mae" not in first
