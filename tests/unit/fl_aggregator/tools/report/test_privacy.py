"""The report says in words, as a bar and as a curve what a private run has told about an edge."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="pip install 'fl-mqtt[report]'")

from tests.support.private_federation import private_federation
from tests.support.run_files import Outline, line, page_of, report, write

pytestmark = pytest.mark.usefixtures("undrawn")


def shown(tmp_path: Path, **settings: Any) -> str:
    private_federation(tmp_path / "run", rounds=2, **settings).run()
    return re.sub(r"\s+", " ", Outline(page_of(tmp_path, tmp_path / "run")).text)


def test_a_private_run_says_what_it_has_told(tmp_path: Path) -> None:
    text = shown(tmp_path, dp_epsilon=8.0)
    last = json.loads((tmp_path / "run" / "history.jsonl").read_text().splitlines()[-1])["privacy"]
    card = text.partition("What the models tell about one edge")[2]
    assert "The run directory is secret" in card
    assert f"better than a coin toss: with at most 64 % accuracy (advantage {last['advantage']:.2g})." in card
    assert f"ε {last['epsilon']:.3g} of 8 at δ = 1e-05: " in card
    assert "% of the budget" in card
    assert "The aggregator is trusted to add the noise; presence, counts and time are not covered." in card
    assert (
        "The noise of a version is 2.5 times as long as the longest possible mean update of 5 edges" in card
    )
    assert f"2 {last['epsilon']:.4g} 0.5 2 0" in card, "as a table"
    page = (tmp_path / "out.html").read_text()
    assert 'aria-label="ε by round: from ' in page
    report(tmp_path / "run", "--out", "-", "--csv", tmp_path / "out.csv")
    head, *rows = (tmp_path / "out.csv").read_text().splitlines()
    where = head.split(",").index("epsilon")
    assert float(rows[-1].split(",")[where]) == last["epsilon"]


def test_a_known_seed_is_said_and_other_runs_have_no_card(tmp_path: Path) -> None:
    text = shown(tmp_path, dp_insecure_seed=1)
    assert "Noise from a known seed: not private." in text
    assert "of the budget" not in text
    plain = page_of(tmp_path, write(tmp_path / "plain", [line(1)]))
    assert "What the models tell about one edge" not in plain
