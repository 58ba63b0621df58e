"""Lines in the log about metrics that an operator should know of."""

from __future__ import annotations

import logging

import pytest

from fl_aggregator.monitoring.views import notices
from fl_aggregator.round import events as on
from fl_aggregator.round.events import ConfusionCounts
from fl_shared.protocol.messages import MetricDeclaration
from tests.support.builders import ACCURACY, MAE, round_summary
from tests.support.round_playbook import Playbook


def logged(playbook: Playbook, line: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings about one event."""
    caplog.clear()
    before = playbook.state
    event = playbook.event(line)
    assert isinstance(event, on.Registered)
    playbook.play(event)
    with caplog.at_level(logging.WARNING):
        notices.log_presence(event, before, playbook.state)
    return caplog.messages


def test_an_edge_that_declares_other_metrics_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    playbook = Playbook(clients=3, per_round=1, declared=(MAE, MetricDeclaration(name="r2")))
    playbook.play("start", "join 0", "join 1", "load 0")
    playbook.declared = (ACCURACY,)
    (line,) = logged(playbook, "load 1", caplog)
    assert line == (
        "edge 1: its task declares the metrics accuracy (%, higher is better, 0 to 1); this run has those of its first "
        "edge: mae (kWh, lower is better, at least 0), r2 (higher is better)"
    )
    assert logged(playbook, "load 1", caplog) == []
    playbook.play("lose 1", "rejoin 1")
    assert logged(playbook, "load 1", caplog) == []


def test_the_metrics_of_an_edge_that_is_refused_are_compared_with_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    playbook = Playbook(clients=2, per_round=1, correct=("prox",)).play("start", "join 0 abilities=prox")
    assert logged(playbook, "load 0", caplog) == [
        "edge 0 does not take part: the run needs prox; this edge has none"
    ]


def test_an_edge_that_has_lost_what_it_kept_is_named(caplog: pytest.LogCaptureFixture) -> None:
    playbook = Playbook(clients=1, per_round=1, correct=("scaffold",)).play(
        "start", "join 0 abilities=scaffold"
    )
    load = "load 0 abilities=scaffold fresh=yes"
    assert logged(playbook, load, caplog) == []
    playbook.play("send 0 round=0", "send 0 round=1", "rejoin 0 abilities=scaffold")
    assert logged(playbook, "load 0 abilities=scaffold", caplog) == []
    (line,) = logged(playbook, load, caplog)
    assert line.startswith("edge 0 has lost what it kept for the correction: it counts as a new edge")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (((0, 7), (0, 3)), True),
        (((0, 7), (1, 2)), False),
        (((0, 0), (0, 10)), False),
    ],
)
def test_a_model_that_knows_one_class_only_is_named(
    counts: tuple[tuple[int, ...], ...], said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    notices.log_single_class(round_summary(3, confusion=ConfusionCounts(("cat", "dog"), counts)))
    line = "version 3 predicts the class 'dog' for all test examples: training may have diverged; try a smaller --lr"
    assert caplog.messages == ([line] if said else [])


def test_it_is_said_at_once_that_all_edges_have_declined_and_why() -> None:
    playbook, waiting = Playbook(clients=9, per_round=2, wait=100), notices.WaitingNotices()
    playbook.play("start", "join 0", "join 10", "join 2")
    playbook.play("join 10 unable=no-data", "join 2 unable=no-data")
    assert waiting.observe_declined(playbook.state, 5.0) is None, "one may still take part"
    playbook.play("join 0 unable=no-task")
    assert waiting.observe_declined(playbook.state, 5.0) == (
        "all edges that have registered decline: 0 (no-task), 2, 10 (no-data); waiting for 9 that have the task and "
        "its data; 95 s left (--wait)"
    )
    assert waiting.observe_declined(playbook.state, 50.0) is None, "once"
    playbook.play("join x unable=no-data")
    assert waiting.observe_declined(playbook.state, 51.0) is not None, "there are more"
    playbook.play("join y unable=no-data")
    assert waiting.observe_declined(playbook.state, 52.0) is None, "a little later"
    assert "2, 10, x, y (no-data)" in (waiting.observe_declined(playbook.state, 54.0) or "")


def test_nothing_is_said_while_no_edge_has_declined() -> None:
    playbook, waiting = Playbook(clients=2, per_round=2, wait=100), notices.WaitingNotices()
    playbook.play("start")
    assert waiting.observe_declined(playbook.state, 5.0) is None
    playbook.play("join 0", "join 1", "load 0", "load 1")
    assert waiting.observe_declined(playbook.state, 50.0) is None


def test_an_edge_of_which_an_update_counts_now_and_then_is_not_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stale = {"7": "stale: 11 versions, at most 10 count (--max-staleness)", "8": "offline: for 3.0 s"}
    seen = notices.StaleNotices()
    for number in (1, 2, 2, 2):
        seen.log(round_summary(number, missing=stale))
    seen.log(round_summary(3, participants=("7",)))
    for number in (4, 5):
        seen.log(round_summary(number, missing=stale))
    assert caplog.messages == []
    for number in (6, 7):
        seen.log(round_summary(number, missing=stale))
    (line,) = caplog.messages
    assert "updates of edges 7 were" in line
