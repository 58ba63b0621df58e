"""An edge repeats its update until it is answered (protocol, 5.5 and 5.6)."""

from __future__ import annotations

import pytest

from fl_edge.session import machine
from fl_edge.session.transitions import retry_delay
from fl_edge.session.work import (
    Fetching,
    Idle,
    Reporting,
)
from fl_shared.protocol import messages as m
from tests.support.session_script import SessionScript, update
from tests.support.session_steps import TRAINS, sent


def test_5_5_an_update_is_repeated_after_pauses_of_5_to_30_seconds() -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1")
    for attempt in range(6):
        due = machine.due(script.state)
        assert due is not None
        wait = due - script.now
        assert 5 <= wait <= 30
        assert attempt == 0 or wait >= 10
        assert script.texts(f"time {wait - 0.01}") == []
        delayed, message = sent(script.do("time 0.02"))
        assert isinstance(delayed, m.Delayed)
        assert (delayed.round, delayed.awaits) == (1, "answer")
        assert isinstance(message, m.Offer), "a broker may drop what is large without a word"


def test_5_5_an_update_is_kept_offline_and_sent_again_under_the_new_envelope() -> None:
    script = SessionScript()
    script.do(*TRAINS, "lost")
    assert sent(script.do("trained 1")) == []
    assert machine.due(script.state) is None
    script.do("connected s2")
    messages = sent(script.do("admitted part=7/20 incarnation=2"))
    [kept] = [message for message in messages if isinstance(message, m.Update)]
    assert (kept.session, kept.incarnation, kept.digest) == ("s2", 2, update().digest)
    assert sent(script.do("admitted part=7/20 incarnation=2")) == [], "once is enough on one connection"


def test_5_5_a_reconnect_finds_the_update_held() -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1", "lost", "connected s2", "admitted part=7/20 finished_round=1")
    assert isinstance(script.session.work, Idle)


def test_5_5_accepted_ends_it_whatever_the_incarnation() -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1")
    assert script.texts("accepted 1") == ["forget the update that was kept", "say round 1: accepted"]
    assert isinstance(script.session.work, Idle)
    assert script.do("accepted 1") == ()


@pytest.mark.parametrize("line", ["accepted 2", "accepted 1 run=ghost", f"accepted 1 digest={'0' * 64}"])
def test_an_answer_to_something_else_ends_nothing(line: str) -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1")
    assert script.do(line) == ()
    assert isinstance(script.session.work, Reporting)


@pytest.mark.parametrize("line", ["rejected 1 wrong-base", "rejected 1 late"])
def test_5_6_a_rejected_update_is_dropped_and_the_round_not_trained_again(line: str) -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1")
    forgotten, said = script.texts(line)
    assert forgotten == "forget the update that was kept"
    assert "say warning: round 1: rejected" in said
    assert isinstance(script.session.work, Idle)
    assert script.do("selected 1") == ()


def test_a_finished_update_outlives_the_result_until_it_is_answered() -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1", "result 1", "selected 2 cohort=8")
    assert isinstance(script.session.work, Reporting)
    script.do("rejected 1 late")
    assert isinstance(script.session.work, Idle)


def test_a_new_selection_takes_the_place_of_an_unanswered_update() -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1", "selected 2")
    assert isinstance(script.session.work, Fetching)
    assert script.do("accepted 1") == ()


def test_updates_are_not_repeated_to_an_aggregator_that_is_gone() -> None:
    script = SessionScript()
    script.do(*TRAINS, "aggregator online a1 retained", "trained 1", "aggregator offline a1")
    assert machine.due(script.state) is None
    assert script.do("time 100") == ()
    script.do("aggregator online a2 incarnation=2")
    assert any(
        isinstance(message, m.Update) for message in sent(script.do("admitted part=7/20 incarnation=2"))
    )


def test_another_run_begins_at_its_own_round_1() -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1", "accepted 1", "selected 1 run=other", "aggregator online a2 run=other")
    assert script.texts("admitted part=7/20 run=other")[-1] == "load job=2 digits part=7/20", "15.2: anew"
    assert "say selected for round 1" in script.texts("loaded 2")


def test_pauses_differ_between_edges_and_repeat_for_one() -> None:
    pauses = {retry_delay(str(client), 3, 1.0) for client in range(100)}
    assert len(pauses) == 100
    assert retry_delay("7", 3, 1.0) == retry_delay("7", 3, 1.0)


def test_5_5_parts_of_the_base_that_do_not_arrive_are_told_of() -> None:
    script = SessionScript()
    script.do(*TRAINS[:-1])
    assert isinstance(script.session.work, Fetching)
    [delayed] = sent(script.do("overdue"))
    assert isinstance(delayed, m.Delayed)
    assert (delayed.round, delayed.awaits, delayed.session) == (1, "model", "s1")
    script.do("result 1")
    [delayed] = sent(script.do("overdue"))
    assert isinstance(delayed, m.Delayed)
    assert delayed.round is None, "of the model that it predicts with"
    script.do("lost")
    assert script.do("overdue") == ()
