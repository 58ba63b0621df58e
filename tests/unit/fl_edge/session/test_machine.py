"""What holds in every phase of an edge: stopping, sequence numbers, foreign replies."""

from __future__ import annotations

from tests.support.session_script import SessionScript
from tests.support.session_steps import TRAINS, ready, sent
from tests.support.session_text import shown


def test_stopping_cancels_says_goodbye_and_disconnects() -> None:
    script = SessionScript()
    script.do(*TRAINS)
    assert script.texts("stop") == [
        "cancel job=1",
        "send fl/clients/7/presence (retained): offline session=s1: it was stopped",
        "disconnect",
    ]
    assert script.do("trained 1") == ()
    assert script.do("connected s2") == ()


def test_seq_grows_with_each_message() -> None:
    script = SessionScript()
    numbers = [
        message.seq
        for line in (*TRAINS, "trained 1", "time 40", "time 40")
        for message in sent(script.do(line))
        if hasattr(message, "seq")
    ]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 7


def test_effects_can_be_shown() -> None:
    script = SessionScript()
    assert all(shown(effect) for line in TRAINS for effect in script.do(line))


def test_4_3_an_edge_of_a_run_ignores_replies_of_one_that_was_not_born() -> None:
    for line in ("admitted part=7/20 run=other", "refused run=other id-in-use"):
        script = SessionScript()
        script.do(*TRAINS)
        assert script.texts(line) == []
    script.do("aggregator online a9 run=other")
    assert "cancel job=1" in script.texts("admitted part=7/20 run=other")


def test_5_6_a_rejection_that_does_not_say_of_what_costs_no_update() -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1")
    assert script.texts("rejected 1 late digest=none") == []
    assert "say warning: round 1: rejected" in script.texts("rejected 1 late")[1]


def test_4_1_it_registers_again_where_its_own_session_is_said_to_be_gone() -> None:
    """An old will is answered by a birth; a will of this very session has been believed by the aggregator."""
    script = ready()
    assert [line.split(":")[0] for line in script.texts("presence offline s0")] == [
        "send fl/clients/7/presence (retained)"
    ]
    again = script.texts("presence offline s1")
    assert [line.split(":")[0] for line in again] == [
        "send fl/clients/7/presence (retained)",
        "send fl/register/7",
    ]
