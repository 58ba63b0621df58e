"""The table of asynchronous runs in ``docs/strategies.md`` is what the committed line says."""

from __future__ import annotations

import json
from pathlib import Path

import asynchronous

ROOT = Path(__file__).parents[3]


def test_the_table_is_what_the_line_says() -> None:
    lines = (ROOT / "benchmarks" / "results" / "asynchronous.jsonl").read_text(encoding="utf-8").splitlines()
    found = json.loads(lines[-1])["runs"]
    assert set(found) == set(asynchronous.POLICIES)
    text = (ROOT / "docs" / "strategies.md").read_text(encoding="utf-8")
    assert asynchronous.markdown(found) in text, (
        "python benchmarks/asynchronous.py --table …/asynchronous.jsonl"
    )
