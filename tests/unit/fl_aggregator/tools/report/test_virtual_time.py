"""The report of a run in virtual time says which clock its seconds are of."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="pip install 'fl-mqtt[report]'")

from tests.support.run_files import line, page_of, report, write

pytestmark = pytest.mark.usefixtures("undrawn")


def written(directory: Path) -> Path:
    return write(directory, [line(1, virtual_seconds=100.0, real_seconds=1.5)])


def test_the_page_says_which_clock(tmp_path: Path) -> None:
    page = page_of(tmp_path, written(tmp_path / "run"))
    for said in (
        "in rounds of virtual time",
        "the run took 1.5 s of real time",
        "Phases in seconds of virtual time",
    ):
        assert said in page, said
    assert "virtual time" not in page_of(tmp_path, write(tmp_path / "other", [line(1)]))


def test_a_comparison_says_which_clock_each_run_has(tmp_path: Path) -> None:
    real = write(tmp_path / "real", [line(1)])
    page = page_of(tmp_path, written(tmp_path / "virtual"), real)
    assert "2.2 s of virtual time" in page
    assert "seconds of real or virtual time" in page


def test_the_spreadsheet_has_both_clocks(tmp_path: Path) -> None:
    table = tmp_path / "rounds.csv"
    assert report(written(tmp_path / "run"), "--csv", table, "--out", tmp_path / "page.html").exit_code == 0
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert (row["virtual_seconds"], row["real_seconds"]) == ("100.0", "1.5")
