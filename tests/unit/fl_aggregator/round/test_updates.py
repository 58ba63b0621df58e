"""What becomes of an update; `docs/protocol.md`, 5.5 and 5.6."""

from __future__ import annotations

import pytest

from fl_aggregator.configuration.regions import Sums
from fl_aggregator.round.phases import Aggregating, Buffering, Selecting
from tests.support.round_playbook import round_done, training
from tests.support.round_text import describe
from tests.support.versions import digest_of


def test_an_update_is_kept_before_it_counts_and_before_its_edge_hears_so() -> None:
    """Design G2: "An accepted update is on disk before the edge hears `accepted`"."""
    playbook = training(clients=2, per_round=2, auto=False)
    a = playbook.cohort[0]
    assert playbook >> f"send {a}" << f"keep {a}@1"
    assert not playbook.collecting.updates
    assert playbook >> f"kept {a}" << f"accept {a} {a}@1" << f"fold {a}@1"
    assert playbook.collecting.updates.keys() == {a}


def test_the_same_update_twice_is_accepted_twice_and_counts_once() -> None:
    """5.5: "The same update sent twice is accepted twice and counts once"."""
    playbook = training(clients=2, per_round=2)
    a, b = playbook.cohort
    playbook.play(f"send {a}")
    assert playbook >> f"send {a}" << f"accept {a} {a}@1"
    playbook.play(f"send {b}")
    assert playbook >> f"send {a} round=1 base=v0" << f"accept {a} {a}@1", "even after the close"


def test_first_weights_are_accepted_again_when_an_asynchronous_run_has_gone_on_to_tickets() -> None:
    """5.5. Their edge had lost its connection before it heard so. They come in a round, without a ticket."""
    playbook = training(clients=2, mode="async", buffer=1, concurrency=2)
    (sender,) = playbook.state.closed_rounds[0].accepted
    (other,) = {"0", "1"} - {sender}
    assert playbook >> f"send {sender} round=0 base=none" << f"accept {sender} {sender}@0"
    assert playbook >> f"kept {sender} round=0 base=none" << f"accept {sender} {sender}@0"
    assert playbook >> f"send {other} round=0 base=none" << f"reject {other} {other}@0 not-selected"
    assert isinstance(playbook.state.phase, Buffering)
    assert set(playbook.state.phase.tickets) == {"0", "1"}


def test_the_same_update_twice_before_it_is_kept_counts_once() -> None:
    playbook = training(clients=2, per_round=2, auto=False)
    a = playbook.cohort[0]
    assert (
        playbook
        >> f"send {a}"
        << f"keep {a}@1"
        >> f"send {a}"
        << f"keep {a}@1"
        >> f"kept {a}"
        << f"accept {a}"
        << f"fold {a}@1"
        >> f"kept {a}"
        << f"accept {a}"
    )


def test_another_update_of_the_same_client_is_a_duplicate_and_changes_nothing() -> None:
    """5.6: "`duplicate` (another update of this client is held)"."""
    playbook = training(clients=2, per_round=2)
    a, b = playbook.cohort
    playbook.play(f"send {a}")
    assert playbook >> f"send {a} digest=other" << f"reject {a} other duplicate *{a}@1*"
    playbook.play(f"send {b}")
    assert set(playbook.state.closed_rounds[-1].accepted) == {a, b}


@pytest.mark.parametrize(
    ("what", "reason", "detail"),
    [
        ("base=none", "wrong-base", f"base: none, expected {digest_of(0)[:12]}"),
        ("manifest=N", "wrong-manifest", "manifest: N, expected M"),
        ("examples=0", "bad-examples", "examples: 0, expected 1 to 500 (--max-examples)"),
        ("examples=-1", "bad-examples", "examples: -1, expected 1 to 500 (--max-examples)"),
        ("examples=501", "bad-examples", "examples: 501, expected 1 to 500 (--max-examples)"),
        ("round=9", "stale-round", "round: 9, but round 1 is open"),
    ],
)
def test_a_wrong_update_is_rejected_with_field_value_and_expectation(
    what: str, reason: str, detail: str
) -> None:
    """5.6."""
    playbook = training(clients=2, per_round=2, max_examples=500)
    a = playbook.cohort[0]
    playbook.play(f"send {a} {what}")
    reply = playbook.told[-1][1][-1]
    assert describe(reply).startswith(f"reject {a} ")
    assert f' {reason} "{detail}"' in describe(reply)


def test_an_update_with_as_many_examples_as_may_be_is_kept() -> None:
    playbook = training(clients=2, per_round=2, max_examples=500, auto=False)
    a = playbook.cohort[0]
    assert playbook >> f"send {a} examples=500" << f"keep {a}@1"


def test_an_edge_cannot_have_taken_more_steps_than_it_has_seen_examples() -> None:
    """5.6. Without a bound, one edge that says 2^40 steps makes the changes of all others huge."""
    sums = Sums(combine="normalized:momentum=0.9")
    playbook = training(clients=2, per_round=2, epochs=3, sums=sums, auto=False)
    a = playbook.cohort[0]
    playbook.play(f"send {a} examples=10 steps={2**40}")
    reply = describe(playbook.told[-1][1][-1])
    assert f' bad-examples "steps: {2**40}, expected at most 30 (--epochs × examples)"' in reply
    b = playbook.cohort[1]
    assert playbook >> f"send {b} examples=10 steps=30" << f"keep {b}@1"


def test_steps_that_do_not_count_are_not_looked_at() -> None:
    """5.6: "in a run whose strategy counts steps"."""
    playbook = training(clients=2, per_round=2, epochs=1, auto=False)
    a = playbook.cohort[0]
    assert playbook >> f"send {a} examples=10 steps={2**40}" << f"keep {a}@1"


def test_an_edge_that_was_not_selected_is_told_so() -> None:
    """5.6: `not-selected`, while the round is open and after it."""
    playbook = training(clients=3, per_round=2)
    (a, b), (c,) = playbook.cohort, playbook.substitutes
    assert playbook >> f"send {c}" << f"reject {c} {c}@1 not-selected"
    playbook.play(f"send {a}", f"send {b}")
    assert playbook >> f"send {c} round=1" << f"reject {c} {c}@1 not-selected"


def test_an_update_after_the_deadline_is_late() -> None:
    """5.6: `late`."""
    playbook = training(clients=2, per_round=2, quorum=1, deadline=60)
    a, b = playbook.cohort
    playbook.play(f"send {a}", "wait 60")
    assert playbook.state.version == 1
    assert playbook >> f"send {b} round=1" << f"reject {b} {b}@1 late"


def test_an_update_that_was_kept_too_late_is_not_folded() -> None:
    """Its bytes were being written while the round closed."""
    playbook = training(clients=2, per_round=2, quorum=1, deadline=60, auto=False)
    a, b = playbook.cohort
    playbook.play(f"send {a}", f"kept {a}", f"send {b}")
    assert playbook >> "wait 60" << "average 1 of=*@1" >> f"kept {b}" << f"reject {b} {b}@1 late"


def test_an_update_is_answered_while_the_model_is_made_and_before_the_next_round_opens() -> None:
    """5.6: `no-round`."""
    playbook = training(clients=2, per_round=1, auto=False, grace=0, holdout=0)
    (a,) = playbook.cohort
    playbook.play(f"send {a}", f"kept {a}")
    assert isinstance(playbook.state.phase, Aggregating)
    assert playbook >> f"send {a}" << f"accept {a} {a}@1" >> f"send {a} round=5" << "reject * no-round"
    playbook.play("lose 0", "lose 1", "made")
    assert isinstance(playbook.state.phase, Selecting)
    assert playbook >> f"send {a} round=1" << "accept" >> f"send {a} round=2" << "reject * no-round"


def test_a_round_that_is_long_over_is_stale() -> None:
    """5.6: `stale-round`; only the last four are remembered."""
    playbook = training(clients=2, per_round=2, rounds=20)
    for _ in range(6):
        round_done(playbook)
    assert (
        playbook
        >> "send 0 round=3 base=v2"
        << "accept 0 0@3"
        >> "send 0 round=2"
        << "reject 0 0@2 stale-round"
    )


def test_a_good_update_after_a_bad_one_counts_all_the_same() -> None:
    playbook = training(clients=2, per_round=2)
    a, b = playbook.cohort
    playbook.play(f"send {a} examples=0", f"send {a}", f"send {b}")
    assert set(playbook.state.closed_rounds[-1].accepted) == {a, b}
    assert playbook.state.pending_summaries[-1].missing == {}


def test_nonsense_of_an_edge_whose_update_is_held_costs_it_nothing() -> None:
    playbook = training(clients=2, per_round=2)
    a, b = playbook.cohort
    playbook.play(f"send {a}", f"unusable {a} malformed", f"send {b}")
    assert set(playbook.state.closed_rounds[-1].accepted) == {a, b}


def test_nonsense_of_a_stranger_is_answered_and_changes_nothing() -> None:
    playbook = training(clients=2, per_round=2)
    before = playbook.state
    assert (
        playbook >> "unusable stranger malformed detail='not msgpack'" << "reject stranger - malformed not*"
    )
    assert playbook.state is before


def test_an_offered_update_is_received_and_then_kept() -> None:
    """6.2 and 6.5."""
    playbook = training(clients=2, per_round=2)
    a = playbook.cohort[0]
    assert playbook >> f"offer {a}" << f"receive {a}@1"
    assert not playbook.collecting.updates
    assert playbook >> f"send {a}" << f"keep {a}@1" << f"accept {a} {a}@1" << f"fold {a}@1"
    assert playbook >> f"offer {a}" << f"accept {a} {a}@1", "offered again, it is held already"


def test_an_offer_is_judged_before_a_byte_of_it_is_asked_for() -> None:
    """6.2."""
    playbook = training(clients=3, per_round=2)
    a = playbook.cohort[0]
    (stranger,) = {"0", "1", "2"} - set(playbook.cohort)
    assert playbook >> f"offer {stranger}" << f"reject {stranger} not-selected"
    assert playbook >> f"offer {a} base=v7" << f"reject {a} wrong-base" << "announce 1", (
        "a substitute is called"
    )


def test_an_offer_that_comes_after_the_close_is_answered() -> None:
    playbook = training(clients=2, per_round=2, over_select=0, quorum=1, deadline=50)
    a, b = playbook.cohort
    playbook.play(f"send {a}", "wait 50")
    assert playbook >> f"offer {b} round=1 base=v0" << f"reject {b} late"
