"""``--pace auto``: deadlines and over-selection that follow from what the last rounds took."""

from __future__ import annotations

from typing import Any

import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.round.pace import ResponseTimes, deadline, over_selection, quantile
from fl_aggregator.round.phases import Selecting
from fl_aggregator.round.state import Summary
from tests.support.round_playbook import Playbook, training

AUTO = "auto:quantile=0.8,factor=2,shortest=1,window=3"


def paced(clients: int = 10, per_round: int = 5, pace: str = AUTO, **settings: Any) -> Playbook:
    return training(clients=clients, per_round=per_round, pace=pace, grace=0, **settings)


def limit(playbook: Playbook) -> tuple[float, int]:
    """The seconds that the open round may take, and its extra edges."""
    phase = playbook.collecting
    return phase.deadline - phase.opened, phase.selection_size - phase.target


def respond(playbook: Playbook, *seconds: float) -> None:
    """The edges of the cohort answer, each so many seconds after it was selected; ascending."""
    number, opened = playbook.round, playbook.now
    for client, each in zip(playbook.cohort, seconds, strict=False):
        playbook.now = opened + each
        playbook.play(f"send {client} round={number}")


def last_summary(playbook: Playbook) -> Summary:
    return [e.summary for _, effects in playbook.told for e in effects if isinstance(e, do.PublishResult)][-1]


def test_the_first_round_has_the_deadline_and_the_over_selection_of_the_options() -> None:
    playbook = paced(deadline=100, over_select=2)
    assert limit(playbook) == (100, 2)
    respond(playbook, 1, 2, 3, 4, 5)
    assert last_summary(playbook).metrics["pace_deadline"] == 100
    assert last_summary(playbook).metrics["pace_over_select"] == 2


def test_the_next_round_may_take_a_multiple_of_the_quantile() -> None:
    playbook = paced(deadline=100)
    respond(playbook, 1, 2, 3, 4, 5)
    assert limit(playbook) == (8, 0)
    respond(playbook, 1, 1, 1, 1, 1)
    assert limit(playbook) == (6, 0), "eight of ten answer within 3 s"
    assert last_summary(playbook).metrics["pace_deadline"] == 8


def test_rounds_before_the_window_are_forgotten() -> None:
    playbook = paced(deadline=100)
    respond(playbook, 10, 10, 10, 10, 10)
    for _ in range(3):
        assert limit(playbook) == (20, 0)
        respond(playbook, 1, 1, 1, 2, 3)
    assert limit(playbook) == (4, 0)


def test_a_deadline_is_neither_longer_than_the_option_nor_shorter_than_the_shortest() -> None:
    playbook = paced(deadline=100)
    respond(playbook, 90, 90, 90, 90, 90)
    assert limit(playbook) == (100, 0)
    quick = paced(deadline=100)
    respond(quick, 0.1, 0.1, 0.1, 0.1, 0.1)
    assert limit(quick) == (1, 0)
    short = paced(deadline=0.5)
    respond(short, 0.1, 0.1, 0.1, 0.1, 0.1)
    assert limit(short) == (0.5, 0)


def test_a_substitute_takes_the_seconds_since_it_was_called() -> None:
    playbook = paced(deadline=100, quorum=5)
    opened, first = playbook.now, playbook.cohort[0]
    playbook.now = opened + 10
    playbook.play(f"lose {first}")
    assert len(playbook.cohort) == 6
    playbook.now = opened + 13
    for client in playbook.cohort[1:]:
        playbook.play(f"send {client} round=1")
    (times,) = playbook.state.response_times
    assert (sorted(times.accepted), times.failed) == ([3, 13, 13, 13, 13], 1)


def test_edges_that_fail_are_made_up_for() -> None:
    playbook = paced()
    for client in playbook.cohort[:2]:
        playbook.play(f"lose {client}")
    for client in playbook.cohort[2:]:
        playbook.play(f"send {client} round=1")
    assert limit(playbook)[1] == 2, "five of seven have answered: for five, seven are selected"


def test_more_than_double_are_never_selected_nor_more_than_there_are() -> None:
    many = Playbook(clients=20, per_round=5, pace=AUTO).state.settings
    few = Playbook(clients=7, per_round=5, pace=AUTO).state.settings
    bad = [ResponseTimes(accepted=(1.0,), waited=(), failed=9)]
    assert (over_selection(many, bad), over_selection(few, bad)) == (5, 2)


def test_a_deadline_that_cuts_off_many_grows_again() -> None:
    playbook = paced(deadline=100, quorum=1)
    respond(playbook, 1, 1, 1, 1, 1)
    found: list[float] = []
    while limit(playbook)[0] < 100 and len(found) < 20:
        found.append(limit(playbook)[0])
        playbook.play(f"send {playbook.cohort[0]}", f"wait {limit(playbook)[0]}")
    assert found[:3] == [2, 4, 8], "all have become slow: each round waits longer"
    assert limit(playbook)[0] == 100


def test_after_an_abandoned_round_all_is_as_at_the_start() -> None:
    playbook = paced(deadline=100, over_select=1)
    respond(playbook, 1, 1, 1, 1, 1)
    assert limit(playbook) == (2, 0)
    playbook.play("wait 2")
    assert isinstance(playbook.state.phase, Selecting)
    assert playbook.state.consecutive_abandoned == 1
    assert "deadline: no update within 2 s" in playbook.result(2)
    assert playbook.state.response_times == ()
    playbook.play("wait 1")
    assert limit(playbook) == (100, 1)


def test_a_quorum_is_always_in_time() -> None:
    """Otherwise every other round would be abandoned."""
    playbook = paced(deadline=100, quorum=5)
    respond(playbook, 1, 1, 1, 1, 20)
    assert limit(playbook)[0] == 40


def test_who_was_not_needed_has_not_failed_but_may_be_slow() -> None:
    playbook = paced(deadline=100, over_select=2)
    respond(playbook, 1, 2, 3, 4, 5)
    (times,) = playbook.state.response_times
    assert (times.waited, times.failed) == ((5, 5), 0)
    assert limit(playbook) == (10, 0), "two of seven are slower than 5 s, nobody knows how much"


def test_fixed_rounds_remember_and_say_nothing() -> None:
    playbook = paced(pace="fixed", deadline=100)
    respond(playbook, 1, 1, 1, 1, 1)
    assert (limit(playbook), playbook.state.response_times) == ((100, 0), ())
    assert "pace_deadline" not in last_summary(playbook).metrics


@pytest.mark.parametrize(
    ("accepted", "waited", "share", "expected"),
    [
        ((4.0, 3.0, 2.0, 1.0), (), 0.5, 2.0),
        ((4.0, 3.0, 2.0, 1.0), (), 1.0, 4.0),
        ((1.0, 2.0), (2.0, 2.0), 0.5, 2.0),
        ((1.0, 2.0), (2.0, 2.0), 0.75, None),
        ((1.0,), (0.5,), 1.0, 1.0),
        # 1.5 says nothing about who answers later: of the two left after it, one is in by 2.
        ((1.0, 2.0, 3.0), (1.5,), 0.6, 2.0),
        ((), (5.0,), 0.5, None),
    ],
)
def test_quantiles_of_times_of_which_some_are_cut_off(
    accepted: tuple[float, ...], waited: tuple[float, ...], share: float, expected: float | None
) -> None:
    assert quantile([ResponseTimes(accepted=accepted, waited=waited, failed=0)], share) == expected


def test_a_resumed_run_goes_on_with_what_it_has_seen() -> None:
    playbook = paced(deadline=100)
    respond(playbook, 1, 2, 3, 4, 5)
    until = playbook.collecting.deadline
    playbook.play("interrupt", "resume")
    assert playbook.collecting.deadline == until
    playbook.invariants.check_replay(playbook.state)
    assert deadline(playbook.state.settings, playbook.state.response_times) == 8
