"""What a strategy says of its versions is in the history and in the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from fl_aggregator.tools.report.page import page
from fl_aggregator.tools.report.reading import read_run_report
from tests.support import programs

RUN = (
    *("--task", "digits-mlp", "--clients", "6", "--rounds", "2", "--epochs", "1", "--quorum", "6"),
    *("--strategy", "multi-krum:bad=1", "--transform", "clip:norm=0.1", "--attack", "sign-flip:edges=2+2"),
    *("--deadline", "120", "--wait", "120"),
)

pytestmark = [pytest.mark.broker, pytest.mark.usefixtures("light_edges")]


def test_who_was_chosen_is_in_the_history_and_in_the_report(tmp_path: Path) -> None:
    with programs.simulate(tmp_path, *RUN) as run:
        run.ends_well()
    lines = programs.history(tmp_path)
    for line in lines:
        assert line["strategy"]["chosen"] == ["0", "1", "3", "4", "5"]
        assert line["strategy"]["numbers"]["clipped"] == 6
        assert 0 < line["strategy"]["numbers"]["change_norm"] <= 0.1
    html = page([read_run_report(tmp_path / "run")])
    assert "What the strategy did" in html
    assert "0 in 2 of 2 rounds, 1 in 2 of 2 rounds, 2 (attacks) in 0 of 2 rounds" in html
    assert "change_norm" in html
