"""Reasons that several edges give."""

from __future__ import annotations

from fl_shared.system.reasons import by_reason


def test_reasons_that_differ_only_in_the_file_are_one() -> None:
    missing = "/data/gw{0}/{0}.csv: row 1: column 'label' (target) is missing; the file has: a, b"
    reasons = [("gw1", missing.format(1)), ("gw2", missing.format(2)), ("gw3", "no-data"), ("gw4", None)]
    assert by_reason(reasons) == [
        (["gw1", "gw2"], "…: row 1: column 'label' (target) is missing; the file has: a, b"),
        (["gw3"], "no-data"),
        (["gw4"], None),
    ]
    assert by_reason([("a", "a.csv: empty"), ("b", "b.csv: empty")]) == [(["a", "b"], "…: empty")]
    assert by_reason([("a", "a.csv: empty"), ("b", "a.csv: empty")]) == [(["a", "b"], "a.csv: empty")]
    assert len(by_reason([("a", "a.csv: empty"), ("b", "b.csv: 0.5 is no class")])) == 2
