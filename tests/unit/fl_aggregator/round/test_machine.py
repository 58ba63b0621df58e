"""How rounds and runs end, and what our own reconnects do to them; `docs/protocol.md`, 5.8, 5.9 and 8.2."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fl_aggregator.round.phases import (
    Aggregating,
    Collecting,
    Evaluating,
    Failed,
    Finished,
    Selecting,
    Stopped,
)
from fl_aggregator.round.summary import MAX_TRAINING_METRICS
from tests.support.round_playbook import round_done, training

# --- how a round ends -------------------------------------------------------------------------------------


def test_a_round_closes_when_everyone_present_has_answered_and_the_quorum_is_in() -> None:
    """5.8: "when every selected edge that is present has answered and the quorum is in"."""
    playbook = training(clients=3, per_round=3, quorum=2, grace=5)
    a, b, c = playbook.cohort
    playbook.play(f"send {a}", f"send {b}")
    assert playbook >> "wait 10" >> f"lose {c}" >> "wait 4"
    playbook.play("wait 1")
    assert playbook.state.version == 1
    assert f"{c}=offline: for 5.0 s" in playbook.result(1)


def test_4_1_a_round_says_why_an_edge_has_left() -> None:
    playbook = training(clients=3, per_round=3, quorum=2, grace=5)
    a, b, c = playbook.cohort
    playbook.play(f"send {a}", f"send {b}", f"lose {c} reason=stopped", "wait 5")
    assert f"{c}=offline: for 5.0 s, left: stopped" in playbook.result(1)
    playbook.play(f"rejoin {c}")
    assert playbook.state.roster[c].left is None


def test_a_round_closes_at_its_deadline_with_the_quorum() -> None:
    """5.8: "or at its deadline with the quorum"."""
    playbook = training(clients=3, per_round=3, quorum=2, deadline=60)
    a, b, c = playbook.cohort
    playbook.play(f"send {a}", f"send {b}", "wait 59.9")
    assert playbook.state.version == 0
    playbook.play("wait 0.1")
    assert playbook.state.version == 1
    assert f"{c}=deadline: no update within 60 s" in playbook.result(1)


def test_anything_that_happens_at_the_deadline_ends_the_round() -> None:
    playbook = training(clients=3, per_round=3, quorum=2, deadline=60)
    a, b, _ = playbook.cohort
    playbook.play(f"send {a}", "sleep 60")
    assert (
        playbook
        >> f"send {b}"
        << f"keep {b}@1"
        << "result 1 abandoned"
        << "withdraw 1"
        << "history 1"
        << f"reject {b} {b}@1 late"
    ), "an update that was not kept in time does not count"


def test_below_the_quorum_the_round_is_abandoned_and_the_model_stays() -> None:
    """5.8: "Otherwise it is abandoned and a round with the next number opened; the model stays"."""
    playbook = training(clients=3, per_round=3, quorum=2, deadline=60)
    a, b, c = playbook.cohort
    model = playbook.state.model
    playbook.play(f"send {a}")
    assert (
        playbook
        >> "wait 60"
        << f"result 1 abandoned - by=- examples=0 {min(b, c)}=deadline* {max(b, c)}=deadline* "
        "reason='the deadline passed, but only 1 of 2 updates arrived'"
        << "withdraw 1"
        << "history 1 abandoned"
        >> "wait 1"
        << "announce 2 base=v0"
    )
    assert playbook.state.model == model
    round_done(playbook)
    assert playbook.state.version == 1


def test_a_round_that_nobody_is_left_to_answer_is_abandoned_before_its_deadline() -> None:
    playbook = training(clients=2, per_round=2, quorum=2, grace=0)
    a, b = playbook.cohort
    playbook.play(f"fail {a}")
    assert (
        playbook
        >> f"lose {b}"
        << "result 1 abandoned reason='all connected edges have answered, but only 0 of 2 updates arrived'"
        << "withdraw 1"
        << "history 1"
    )


def test_a_round_whose_updates_were_rejected_says_why() -> None:
    playbook = training(clients=2, per_round=2, quorum=2)
    a, b = sorted(playbook.cohort)
    detail = "delta: a value of magnitude 7e5, expected at most 100 (--max-delta)"
    playbook.play(f"unusable {a} too-large detail='{detail}'")
    assert (
        playbook
        >> f"fail {b}"
        << "result 1 abandoned reason='all connected edges have answered, but only 0 of 2 updates were accepted; "
        f"rejected: 1, of edge {a}: too-large: {detail}; training may have diverged: try a smaller --lr'"
        << "withdraw 1"
        << "history 1"
    )


def test_abandoned_rounds_back_off_and_five_in_a_row_fail_the_run() -> None:
    """Design §4: "a new one opened (bounded, backing off)"."""
    playbook = training(clients=2, per_round=2, quorum=2)
    for number, pause in enumerate((1, 2, 4, 8), start=1):
        playbook.play("fail 0")
        playbook.play("fail 1")
        assert isinstance(playbook.state.phase, Selecting)
        assert playbook >> f"wait {pause - 0.1}" >> "wait 0.1" << f"announce {number + 1} base=v0"
    playbook.play("fail 0")
    assert playbook >> "fail 1" << "result 5 abandoned" << "withdraw 5" << "history 5" << "end"
    assert isinstance(playbook.state.phase, Failed)
    assert playbook.state.phase.reason == "rounds-abandoned"
    assert playbook.state.phase.detail == (
        "5 rounds in a row were abandoned; round 5: "
        "all connected edges have answered, but only 0 of 2 updates arrived; "
        "missing: 0, 1 (failed: out of memory)"
    )


def test_a_commit_forgets_earlier_abandoned_rounds() -> None:
    playbook = training(clients=2, per_round=2, quorum=2, rounds=10)
    for _ in range(3):
        for _ in range(4):
            playbook.play("fail 0")
            playbook.play("fail 1", "wait 16")
        round_done(playbook)
    assert playbook.state.version == 3
    assert playbook.round == 16, "every attempt is a new number"


def test_a_model_that_nobody_ordered_changes_nothing() -> None:
    playbook = training(clients=2, per_round=1)
    before = playbook.state
    assert playbook >> "made" >> "made round=0" >> "made round=7"
    assert playbook.state is before


def test_what_the_edges_measured_is_averaged_by_examples() -> None:
    playbook = training(clients=2, per_round=2)
    a, b = playbook.cohort
    playbook.play(
        f"send {a} examples=10 before.accuracy=0.5 after.accuracy=0.5 train.loss=2",
        f"send {b} examples=30 after.accuracy=0.9",
    )
    assert dict(playbook.state.pending_summaries[-1].metrics) == {
        "before_accuracy": 0.5,
        "after_accuracy": pytest.approx(0.8),
        "train_loss": 2,
        "edges_mean": 0.5,
        "edges_p10": 0.5,
        "edges_worst": 0.5,
    }


def test_measurements_that_no_message_can_carry_are_left_out() -> None:
    playbook = training(clients=1, per_round=1)
    many = " ".join(f"after.m{n}=1" for n in range(100))
    playbook.play(f"send 0 before.loss=1e308 before.{'x' * 64}=1 {many}")
    metrics = playbook.state.pending_summaries[-1].metrics
    assert len(metrics) == MAX_TRAINING_METRICS
    assert "before_loss" not in metrics
    assert all(len(name) <= 64 for name in metrics)


# --- our own connection -----------------------------------------------------------------------------------


@pytest.mark.parametrize("grace", [0, 5])
def test_after_a_reconnect_edges_have_time_to_register_again(grace: float) -> None:
    """8.2 and design §3: a broker that restarts cuts off everybody; that is not a link that blinks."""
    playbook = training(clients=3, per_round=2, grace=grace)
    (a, b), (c,) = playbook.cohort, playbook.substitutes
    assert (
        playbook
        >> "reconnect"
        >> "wait 9.9"
        >> f"rejoin {a}"
        << f"admit {a}"
        >> f"rejoin {c}"
        << f"admit {c}"
    )
    assert playbook >> "wait 0.1" << f"announce 1 cohort={a},{b},{c}", "who has not come back is lost"


def test_a_will_heard_after_a_reconnect_needs_no_waiting() -> None:
    playbook = training(clients=3, per_round=1, grace=0)
    (a,), (b, _) = playbook.cohort, playbook.substitutes
    playbook.play("reconnect", f"rejoin {b}")
    assert playbook >> f"lose {a}" << f"announce 1 cohort={a},{b}"


def test_a_reconnect_between_rounds_waits_for_those_who_were_present() -> None:
    """Design G2: "before a new selection waits (bounded) for those who were present"."""
    playbook = training(clients=4, per_round=2, quorum=1, auto=False, holdout=0)
    for client in playbook.cohort:
        playbook.play(f"send {client}", f"kept {client}")
    playbook.play("reconnect", "made", "rejoin 0", "rejoin 1", "rejoin 2")
    assert isinstance(playbook.state.phase, Selecting)
    assert playbook >> "rejoin 3" << "admit 3" << "announce 2"


def test_the_wait_for_those_who_were_present_is_bounded() -> None:
    playbook = training(clients=4, per_round=2, quorum=1, auto=False, holdout=0)
    for client in playbook.cohort:
        playbook.play(f"send {client}", f"kept {client}")
    playbook.play("reconnect", "made", "rejoin 0")
    assert playbook >> "wait 9.9" >> "wait 0.1" << "announce 2 cohort=0"


def test_a_restarted_edge_whose_update_is_held_is_told_so() -> None:
    """4.3; design §3: "what is already held for the open round"."""
    playbook = training(clients=2, per_round=2)
    a, b = playbook.cohort
    playbook.play(f"send {a}", "reconnect")
    assert (
        playbook
        >> f"rejoin {a}"
        << f"admit {a} finished_round=1 to={a}.2"
        >> f"rejoin {b}"
        << f"admit {b} to={b}.2"
    )


def test_a_restarted_edge_whose_update_is_being_averaged_is_told_so() -> None:
    """4.3. Else it would train again, since the selection is retained until the version is made."""
    playbook = training(clients=2, per_round=2, auto=False)
    a, b = playbook.cohort
    playbook.play(f"send {a}", f"kept {a}", f"send {b}", f"kept {b}")
    assert isinstance(playbook.state.phase, Aggregating)
    assert playbook >> f"rejoin {a}" << f"admit {a} finished_round=1 to={a}.2"


@pytest.mark.parametrize("ends", ["surplus", "unanswered"])
def test_a_restarted_edge_without_which_the_round_has_closed_is_told_so(ends: str) -> None:
    """4.3. Else it would train in vain."""
    playbook = training(clients=3, per_round=2, over_select=1, auto=False)
    a, b, c = playbook.cohort
    playbook.play(f"send {a}", f"kept {a}", f"send {b}", f"kept {b}")
    assert isinstance(playbook.state.phase, Aggregating)
    if ends == "surplus":
        playbook.play(f"send {c}")
    assert playbook >> f"rejoin {c}" << f"admit {c} finished_round=1 to={c}.2"


def test_a_restarted_edge_that_has_missed_the_result_is_told_that_the_round_has_closed() -> None:
    """4.3. Else it would train again: the selection that it knows may be that of the process that was killed."""
    playbook = training(clients=2, per_round=2, auto=False)
    a, b = playbook.cohort
    playbook.play(f"send {a}", f"kept {a}", f"send {b}", f"kept {b}", "resume", "made")
    assert isinstance(playbook.state.phase, Selecting)
    assert playbook >> f"rejoin {a}" << f"admit {a} finished_round=1 to={a}.2"


def test_a_restarted_edge_is_still_needed_in_the_open_round_of_a_stopped_run() -> None:
    playbook = training(clients=2, per_round=2)
    a, b = playbook.cohort
    playbook.play(f"send {a}", "interrupt by the operator")
    assert playbook >> f"rejoin {b}" << f"admit {b} to={b}.2"


# --- the end ----------------------------------------------------------------------------------------------


def test_the_run_ends_after_its_last_version() -> None:
    playbook = training(clients=2, per_round=2, rounds=2, holdout=0)
    round_done(playbook)
    playbook.play("send 0", "send 1")
    assert playbook.state.phase == Finished(at=0.0, reason="rounds")
    assert playbook.invariants.written == [1, 2]


def test_an_interrupt_ends_the_run_and_writes_what_is_known() -> None:
    playbook = training(clients=2, per_round=2, evaluator=True)
    round_done(playbook)
    playbook.play("send 0")
    assert playbook >> "interrupt by the operator" << "history 1 committed" << "end"
    assert isinstance(playbook.state.phase, Stopped)
    assert playbook.state.phase.reason == "by the operator"


def test_a_stopped_run_goes_on_in_the_same_round_with_what_it_held() -> None:
    playbook = training(clients=2, per_round=2, evaluator=True)
    round_done(playbook)
    playbook.play("send 0")
    before = playbook.collecting
    playbook.play("interrupt by the operator", "send 1", "resume")
    assert replace(playbook.collecting, awaited=before.awaited) == before, (
        "but nobody has registered again yet"
    )
    assert playbook.state.incarnation == 2
    playbook.play(
        "rejoin 0 roles=train", "rejoin 1 roles=train", "rejoin e roles=evaluate", "evaluate e 1 0.5"
    )
    assert playbook.invariants.written == [1], "the line is written anew, with the accuracy"
    playbook.play("send 1")
    assert playbook.state.version == 2


def test_who_does_not_come_back_after_a_resume_is_lost() -> None:
    playbook = training(clients=3, per_round=2, quorum=1, grace=0)
    a, b = playbook.cohort
    (other,) = {"0", "1", "2"} - {a, b}
    playbook.play(f"send {a}", "resume", f"rejoin {a} roles=train", f"rejoin {other} roles=train")
    assert playbook.collecting.cohort == (a, b)
    playbook.play("wait 11")
    assert playbook.cohort[2:] == (other,), "its substitute is called"


def test_a_failed_run_is_taken_up_again_with_a_new_wait() -> None:
    playbook = training(clients=2, per_round=2, holdout=0, wait=20)
    round_done(playbook)
    playbook.play("lose 0", "lose 1", "wait 6", "wait 25", "wait 25", "wait 25", "wait 25")
    assert isinstance(playbook.state.phase, Failed)
    playbook.play("wait 100", "resume")
    playbook.play("rejoin 0 roles=train", "rejoin 1 roles=train", "tick", "send 0", "send 1")
    assert playbook.state.version == 2


def test_a_round_whose_accepted_updates_are_gone_is_abandoned() -> None:
    playbook = training(clients=2, per_round=2, holdout=0)
    number = playbook.round
    playbook.play("send 0", "resume", "forget 0")
    assert playbook.state.closed_rounds[-1].round == number
    assert playbook.state.phase.round == number + 1  # type: ignore[union-attr]
    assert "lost when the aggregator stopped" in str(playbook.state.pending_summaries or playbook.told[-1])
    assert playbook.state.version == 0


def test_a_resume_after_the_end_changes_nothing() -> None:
    playbook = training(clients=2, per_round=2, rounds=1, holdout=0)
    round_done(playbook)
    before = playbook.state
    playbook.play("resume")
    assert playbook.state == before


def test_after_the_end_questions_are_answered_and_nothing_changes() -> None:
    playbook = training(clients=2, per_round=2, rounds=1, holdout=0, auto=False)
    playbook.play("send 0", "kept 0", "send 1", "kept 1", "made")
    end = playbook.state
    assert isinstance(end.phase, Finished)
    assert (
        playbook
        >> "rejoin 0"
        << "admit 0 part=0 to=0.2"
        >> "join 0 device=another"
        << "refuse 0 id-in-use"
        >> "join newcomer"
        << "admit newcomer part=-"
        >> "send 0 round=1 base=v0"
        << "accept 0 0@1"
        >> "send 0 round=1 base=v0 digest=other"
        << "reject 0 other surplus"
        >> "send 0 round=2"
        << "reject 0 0@2 no-round"
        >> "kept 0"
        << "reject 0 0@2 no-round"
        >> "unusable 1 malformed"
        << "reject 1 - malformed"
        >> "lose 0"
        >> "fail 0"
        >> "made"
        >> "evaluate e 1 0.5"
        >> "reconnect"
        >> "wait 1000"
        >> "start"
        >> "interrupt"
    )
    assert playbook.state is end


def test_an_interrupted_run_leaves_the_updates_of_its_open_round_to_their_edges() -> None:
    """It can be taken up again (design §8), and nobody is to train twice: a rejected update would be dropped."""
    playbook = training(clients=2, per_round=2, auto=False)
    playbook.play("send 0", "interrupt")
    assert playbook >> "kept 0" >> "send 1 round=1" >> "send 1 round=0" << "reject 1 1@0 not-selected"


def test_started_again_a_run_goes_on_where_it_is() -> None:
    playbook = training(clients=2, per_round=1)
    before = playbook.state
    assert playbook >> "start"
    assert playbook.state is before
    assert isinstance(playbook.state.phase, Collecting)


def test_what_was_recorded_gives_the_state_back() -> None:
    """Design G2: "A resumed aggregator replays the journal through `step` and never re-decides"."""
    playbook = training(clients=4, per_round=2, grace=0, rounds=2, evaluator=True)
    a, b = playbook.cohort
    playbook.play(
        f"send {a} examples=0", f"lose {b}", "tick", "reconnect", *(f"rejoin {n}" for n in range(4))
    )
    playbook.play("rejoin e", f"unusable {a} malformed", "wait 3")
    round_done(playbook)
    playbook.play("evaluate e 1 0.5")
    assert not isinstance(playbook.state.phase, Evaluating)
    playbook.invariants.check_replay(playbook.state)
    assert len(playbook.invariants.journal) < len(playbook.told)
