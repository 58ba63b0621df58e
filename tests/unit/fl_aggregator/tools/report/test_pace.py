"""The report and the log of a run with ``--pace auto`` say what each round was opened with."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="pip install 'fl-mqtt[report]'")

from fl_aggregator.monitoring.terminal.text import round_line
from fl_aggregator.monitoring.views.round_record import RoundRecord
from tests.support.run_files import line, page_of, write

pytestmark = pytest.mark.usefixtures("undrawn")


def test_deadlines_and_over_selection_are_drawn_and_said(tmp_path: Path) -> None:
    lines = [line(n, metrics={"pace_deadline": 20.0 * n, "pace_over_select": float(n)}) for n in (1, 2)]
    page = page_of(tmp_path, write(tmp_path / "run", lines))
    assert "Deadlines" in page
    assert "Over-selection" in page
    said = round_line(RoundRecord.model_validate(lines[1]), 2)
    assert ", deadline 40 s, 2 more edges selected than needed" in said


def test_a_run_with_fixed_deadlines_has_no_such_curves(tmp_path: Path) -> None:
    page = page_of(tmp_path, write(tmp_path / "run", [line(1)]))
    assert "Over-selection" not in page
