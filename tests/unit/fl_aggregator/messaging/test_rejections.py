"""Counting what is refused: by edge and reason, by round, and bounded."""

from __future__ import annotations

import logging

import pytest

from fl_aggregator.cli.summary import refused_line
from fl_aggregator.messaging.rejections import (
    MAX_COUNTED_EDGES,
    MAX_COUNTED_STRANGERS,
    OTHERS,
    UNKNOWN,
    Rejections,
)


def test_each_refusal_is_in_one_round_and_in_the_total() -> None:
    refusals = Rejections()
    refusals.count("a", "not-finite", "x")
    refusals.count(None, "malformed", "x")
    refusals.close_round(1)
    refusals.count("a", "not-finite", "x")
    refusals.count("a", "late", "x")
    refusals.close_round(2)
    refusals.close_round(1)  # its result is published again
    refusals.count("b", "no-room", "x", 7)
    assert refusals.pop_round(1) == {UNKNOWN: {"malformed": 1}, "a": {"not-finite": 1}}
    assert refusals.pop_round(1) == {}
    assert refusals.pop_round(2) == {"a": {"late": 1, "not-finite": 1}}
    assert refusals.total == {
        UNKNOWN: {"malformed": 1},
        "a": {"late": 1, "not-finite": 2},
        "b": {"no-room": 7},
    }
    refusals.close_round(3)
    assert refusals.pop_round(3) == {"b": {"no-room": 7}}


def test_names_are_bounded() -> None:
    refusals = Rejections()
    for number in range(MAX_COUNTED_EDGES + 500):
        refusals.count(f"edge-{number}", "malformed", "x")
    refusals.count("edge-0", "malformed", "x")
    assert len(refusals.total) == MAX_COUNTED_EDGES + 1
    assert refusals.total[OTHERS] == {"malformed": 500}
    assert refusals.total["edge-0"] == {"malformed": 2}


def test_strangers_are_named_in_a_bounded_number_of_their_own() -> None:
    refusals = Rejections()
    for number in range(MAX_COUNTED_STRANGERS + 500):
        refusals.count(f"fresh-{number}", "malformed", "x", known=False)
    refusals.count("fresh-0", "malformed", "x", known=False)
    assert refusals.total["fresh-0"] == {"malformed": 2}
    assert refusals.total[UNKNOWN] == {"malformed": 500}
    for number in range(MAX_COUNTED_EDGES):
        refusals.count(f"edge-{number}", "malformed", "x")
    assert OTHERS not in refusals.total


def test_it_is_said_the_first_time_and_at_powers_of_ten(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    refusals = Rejections()
    for _ in range(1234):
        refusals.count("a", "malformed", "round: Field required")
    refusals.count(None, "no-room", "x", 12)
    refusals.count(None, "no-room", "x", 500)
    refusals.count("a", "surplus", "x" * 1000)
    said = [record.getMessage().split("(")[1].split(")")[0] for record in caplog.records[:4]]
    assert said == [f"malformed, {times} so far" for times in (1, 10, 100, 1000)]
    assert "refused a message from a" in caplog.messages[0]
    assert "round: Field required" in caplog.messages[0]
    assert ["12 so far" in m or "512 so far" in m for m in caplog.messages[4:6]] == [True, True]
    assert caplog.records[-1].levelno == logging.INFO, "what over-selection brings is nobody's fault"
    assert len(caplog.messages[-1]) < 400
    assert len(caplog.records) == 7


def test_the_closing_line_names_those_with_the_most_first() -> None:
    refused = {f"e{n:02}": {"late": 1} for n in range(12)} | {"7": {"malformed": 3, "not-finite": 1}}
    line = refused_line(refused)
    assert line.startswith("refused: 7 malformed 3, not-finite 1; e00 late 1; ")
    assert line.endswith("; and 3 more")
