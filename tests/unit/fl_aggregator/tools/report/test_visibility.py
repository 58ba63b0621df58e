"""The report says what the aggregator could see, and shows no numbers of single edges of a masked run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="pip install 'fl-mqtt[report]'")

from fl_aggregator.monitoring.views.visibility import NO_NUMBERS, NOT_CERTIFIED
from tests.support.run_files import SETTINGS, Outline, accepted, line, page_of, write

pytestmark = pytest.mark.usefixtures("undrawn")

MASKED = SETTINGS | {"clients": 8, "per_round": 6, "masked": True}
SECONDS = {"selecting": 0.5, "collecting": 1.5, "agreeing": 0.75, "unmasking": 1.25, "aggregating": 0.25}


def page(tmp_path: Path, **record: Any) -> Outline:
    lines = [
        line(1, masked=True, participants=list("012345"), seconds=SECONDS),
        line(2, masked=True, participants=list("01245"), seconds=SECONDS),
        line(3, masked=True, participants=[], version=None, outcome="abandoned", seconds={"collecting": 1.0}),
    ]
    run = write(
        tmp_path / "run", lines, record={"settings": MASKED} | record, journal=f"{accepted('0', 1, 0.3217)}\n"
    )
    return Outline(page_of(tmp_path, run))


def test_a_masked_run_shows_sums_and_no_numbers_of_single_edges(tmp_path: Path) -> None:
    text = page(tmp_path, certified=True).text
    shown = re.sub(r"\s+", " ", text)
    assert (
        "Only sums of at least 5 updates , one a round. The smallest was of 5 updates, in round 2." in shown
    )
    assert "Kits certified the edges' keys" in shown
    assert NOT_CERTIFIED[1:] not in shown
    assert NO_NUMBERS in shown
    assert "0.3217" not in shown, "what an edge's model scores on its holdout"
    headings = shown.partition("Edges: how often each took part")[2].partition(" 0 ")[0]
    assert headings.split() == ["edge", "selected", "in", "missing"]
    rounds = shown.partition("Rounds Phases in seconds.")[2]
    assert " agree unmask " in rounds, "the seconds of the phases"
    assert "0.75 1.25" in rounds


def test_without_kits_it_says_that_keys_were_not_certified(tmp_path: Path) -> None:
    shown = page(tmp_path).text
    assert f"T{NOT_CERTIFIED[1:]}." in shown
    assert "Kits certified" not in shown


def test_a_plain_run_shows_each_update(tmp_path: Path) -> None:
    shown = page_of(tmp_path, write(tmp_path / "run", [line(1)], journal=f"{accepted('0', 1, 0.3217)}\n"))
    assert "<b>Each update</b>, with its number of examples" in shown
    assert "32.2 %" in shown or "0.3217" in shown
    assert NO_NUMBERS not in shown
