"""``--similarity N``: a run names who is unlike the others, in its log, history, report and results."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_aggregator.tools.report.page import page
from fl_aggregator.tools.report.reading import read_run_report
from tests.support import programs

RUN = (
    *("--task", "digits-mlp", "--clients", "6", "--rounds", "2", "--epochs", "1", "--similarity", "2"),
    *("--deadline", "120", "--wait", "120", "--attack", "sign-flip:edges=2+2"),
)

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges")]


def test_the_edge_that_works_against_the_others_is_named(tmp_path: Path) -> None:
    with programs.simulate(tmp_path, *RUN) as run:
        run.ends_well()
    first, second = programs.history(tmp_path)
    assert first["similarity"] is None
    assert list(second["similarity"]["outliers"]) == ["2"]
    assert second["similarity"]["shares"][2] < 0
    assert "unlike the others: 2 (cosine" in run.err
    html = page([read_run_report(tmp_path / "run")])
    assert "Who is unlike the others" in html
    assert (
        f"the median is 1, which is an L2 norm of {second['similarity']['median_length']:g} in round 2."
        in html
    )
    assert "edge 2 (attacks): cosine" in html
    assert "⚠ 2 (attacks)" in html, "colour is not the only sign"
