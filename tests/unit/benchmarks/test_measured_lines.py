"""The committed lines of benchmarks, and what documents and targets make of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import asynchronous
import idle
import measured_lines
import personal
import pytest
import stragglers
import strategies

DOCS = Path(__file__).parents[3] / "docs"


def test_a_line_is_printed_and_written_with_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measured_lines, "RESULTS", tmp_path / "results")
    measured_lines.report({"benchmark": "idle", "seconds": 1.0}, write=False)
    path = measured_lines.path_of("idle")
    assert measured_lines.read_lines(path) == []
    for seconds in (2.0, 3.0):
        measured_lines.report({"benchmark": "idle", "seconds": seconds}, write=True)
    assert capsys.readouterr().out.splitlines()[0] == '{"benchmark": "idle", "seconds": 1.0}'
    lines = measured_lines.read_lines(path)
    assert [line["seconds"] for line in lines] == [2.0, 3.0]
    assert all(line["commit"] == measured_lines.commit() for line in lines)


def test_code_of_another_place_is_not_measured_under_this_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured_lines, "CLONE", tmp_path)
    with pytest.raises(
        RuntimeError, match=r"fl_aggregator is .*__init__\.py, expected a file in .*: install"
    ):
        measured_lines.commit()


def test_the_line_about_asynchronous_runs_has_all_policies() -> None:
    line = measured_lines.read_lines(measured_lines.path_of("asynchronous"))[-1]
    assert set(line["runs"]) == set(asynchronous.POLICIES)


def test_a_thousand_virtual_edges_are_as_quick_as_they_must_be() -> None:
    line = measured_lines.read_lines(measured_lines.path_of("virtual"))[-1]
    assert (line["edges"], line["per_round"], line["rounds"], line["heterogeneity"]) == (
        1000,
        100,
        20,
        "uniform",
    )
    assert line["times"] == 5
    assert line["events_per_cpu_second"] >= 10_000
    assert line["cpu_seconds"] < 10


@pytest.mark.parametrize(
    ("benchmark", "page", "table"),
    [
        ("personal", "personal.md", lambda line: personal.markdown(line["cells"])),
        ("idle", "performance.md", lambda line: idle.markdown(line["cpu_seconds_per_hour"])),
        ("strategies", "performance.md", lambda line: strategies.markdown(line["strategies"])),
        ("asynchronous", "strategies.md", lambda line: asynchronous.markdown(line["runs"])),
        ("stragglers", "simulation.md", lambda line: stragglers.markdown(line["runs"])),
    ],
)
def test_a_table_is_what_the_newest_line_says(
    benchmark: str, page: str, table: Callable[[dict[str, Any]], str]
) -> None:
    expected = table(measured_lines.read_lines(measured_lines.path_of(benchmark))[-1])
    assert expected in (DOCS / page).read_text(encoding="utf-8"), expected
