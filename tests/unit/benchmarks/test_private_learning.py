"""The tables of what private runs learn are those of the measured lines."""

from __future__ import annotations

from pathlib import Path

import private_learning as learning
import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "differential-privacy.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("task", learning.DATA)
def test_the_document_has_the_table(task: str) -> None:
    table = learning.table(task, learning.read_lines())
    assert table in PAGE, "python benchmarks/private_learning.py --table"


def test_what_is_hardly_better_than_a_guess_is_called_nothing() -> None:
    assert learning.accuracy_text([]) == ""
    assert learning.accuracy_text([{"accuracy": 0.12}, {"accuracy": 0.14}]) == "13.0 ± 1.4: next to nothing"
    assert learning.accuracy_text([{"accuracy": 0.5}]) == "50.0"
