"""The strip of dots: what each version is worth at each edge."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.run_files import line, page_of, report, write

STATISTICS = {"accuracy": 0.75, "edges_mean": 0.6, "edges_p10": 0.45, "edges_worst": 0.25}


def measured(number: int, edges: dict[str, float], **changes: Any) -> dict[str, Any]:
    return line(number, edges=edges, edges_version=number - 1, metrics=STATISTICS, **changes)


def strip_of(page: str) -> str:
    (found,) = re.findall(r"<svg(?:(?!</svg>).)*versions at each edge.*?</svg>", page, re.DOTALL)
    return str(found)


def test_each_edge_is_a_dot_and_the_worst_are_named(tmp_path: Path) -> None:
    edges = {"7": 0.25, "0": 0.8, "1": 0.75}
    page = page_of(tmp_path, write(tmp_path / "run", [measured(1, edges), measured(2, edges)]))
    strip = strip_of(page)
    assert (
        "accuracy of 2 versions at each edge. Version 1 at 3 edges: mean 0.6000, 10th percentile 0.4500, worst 0.2500; "
        "the worst: 7 (0.2500), 1 (0.7500), 0 (0.8000)"
    ) in strip
    assert {"an edge", "mean", "10th percentile", "worst"} <= set(re.findall(r">([^<>]+)</text>", strip))
    assert not re.findall(r"#[0-9a-f]{6}", strip), "the colours are those of the page, light or dark"
    assert "The worst in the newest round: </b>7 (0.2500)" in page
    assert "accuracy over the edges" in page


def test_of_many_edges_only_some_are_drawn(tmp_path: Path) -> None:
    edges = {str(number): number / 5000 for number in range(5000)}
    page = page_of(tmp_path, write(tmp_path / "run", [measured(1, edges)]))
    assert "Version 0 at 5000 edges" in page
    dots = len(re.findall(r"<use ", strip_of(page)))
    assert 200 <= dots < 260
    assert len(page) < 300_000


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_values_has_no_such_section(tmp_path: Path) -> None:
    assert "at each edge" not in page_of(tmp_path, write(tmp_path / "run", [line(1)]))


def test_a_name_cannot_break_out_and_a_wrong_line_is_told(tmp_path: Path) -> None:
    bad = line(2, edges={"1": "high"})
    run = write(tmp_path / "run", [measured(1, {"<script>$x": 0.5}), bad])
    page = page_of(tmp_path, run)
    assert "<script>" not in page
    assert "line 2: edges.1" in report(run, "--out", tmp_path / "other.html").output


@pytest.mark.usefixtures("undrawn")
def test_the_table_of_rounds_has_the_statistics(tmp_path: Path) -> None:
    run = write(tmp_path / "run", [measured(1, {"7": 0.25})])
    report(run, "--out", "-", "--csv", tmp_path / "out.csv")
    head, row = (tmp_path / "out.csv").read_text().splitlines()
    values = dict(zip(head.split(","), row.split(","), strict=True))
    assert (values["edges_mean"], values["edges_p10"], values["edges_worst"]) == ("0.6", "0.45", "0.25")
