"""The table of slow and lost edges in ``docs/simulation.md`` is what the committed line says."""

from __future__ import annotations

import json
from pathlib import Path

import stragglers

ROOT = Path(__file__).parents[3]


def test_the_table_is_what_the_line_says() -> None:
    lines = (ROOT / "benchmarks" / "results" / "stragglers.jsonl").read_text(encoding="utf-8").splitlines()
    found = json.loads(lines[-1])["runs"]
    assert set(found) == set(stragglers.PRESETS)
    assert all(set(policies) == set(stragglers.POLICIES) for policies in found.values())
    text = (ROOT / "docs" / "simulation.md").read_text(encoding="utf-8")
    assert stragglers.markdown(found) in text, "python benchmarks/stragglers.py --table …/stragglers.jsonl"
