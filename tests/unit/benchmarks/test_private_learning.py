"""The tables of what private runs learn are those of the measured lines."""

from __future__ import annotations

import private_learning as learning


def test_the_document_has_the_tables() -> None:
    page = learning.PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- private_learning: ") >= 2
    assert page == learning.filled(page, learning.read_lines()), (
        "write it: python benchmarks/private_learning.py --document"
    )


def test_what_is_hardly_better_than_a_guess_is_called_nothing() -> None:
    assert learning.accuracy_text([]) == ""
    assert learning.accuracy_text([{"accuracy": 0.12}, {"accuracy": 0.14}]) == "13.0 ± 1.4: next to nothing"
    assert learning.accuracy_text([{"accuracy": 0.5}]) == "50.0"
