"""The diagrams of `docs/architecture.md` show what the golden traces show."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fl_aggregator.round.phases import PHASES

ROOT = Path(__file__).resolve().parents[2]


def test_the_document_has_the_diagrams_of_the_traces() -> None:
    spec = importlib.util.spec_from_file_location("state_diagrams", ROOT / "scripts" / "state_diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    text = script.DOCUMENT.read_text(encoding="utf-8")
    diagrams = script.diagrams()
    assert script.put_in(text, diagrams) == text, "python scripts/state_diagrams.py --write"
    missing = [phase.__name__ for phase in PHASES if phase.__name__ not in diagrams["round"]]
    assert not missing, "every phase has a trace"
