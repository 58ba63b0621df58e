"""When time may change something next. The invariants check after every step that this is so; here is when it is."""

from __future__ import annotations

from fl_aggregator.round.machine import due
from fl_aggregator.round.roster import REREGISTRATION_GRACE
from fl_aggregator.round.selecting import LOADING_TIMEOUT
from tests.support.round_playbook import Playbook, gathered, round_done, training


def test_before_the_first_round_it_is_the_end_of_the_wait() -> None:
    play = Playbook(clients=3, per_round=2, wait=100).play("start", "join 0", "load 0", "join 1", "load 1")
    assert due(play.state) == 100
    play.play("sleep 50", "join 2")
    assert due(play.state) == 100 + LOADING_TIMEOUT, "everyone is here, and one of them loads"


def test_nothing_is_due_once_the_run_has_ended() -> None:
    assert due(gathered(clients=2, per_round=2).play("interrupt").state) is None


def test_in_a_round_it_is_the_deadline_or_an_absence_that_matters() -> None:
    play = training(clients=4, per_round=2, quorum=1, deadline=60, grace=5)
    opened = play.now
    assert due(play.state) == opened + 60
    play.play(f"lose {play.substitutes[0]}", "sleep 10")
    assert due(play.state) == opened + 60, "nobody waits for a substitute"
    play.play(f"lose {play.cohort[0]}")
    assert due(play.state) == play.now + 5, "the other substitute takes its place"


def test_without_a_substitute_one_absence_matters_only_with_all_others() -> None:
    play = training(clients=2, per_round=2, quorum=1, deadline=60, grace=5)
    first, second = play.cohort
    play.play(f"lose {first}")
    assert due(play.state) == play.now + 60
    play.play("sleep 1", f"lose {second}")
    assert due(play.state) == play.now + 5


def test_after_an_abandoned_round_it_is_the_end_of_the_pause() -> None:
    play = training(clients=2, per_round=2, quorum=2)
    play.play(*(f"fail {client}" for client in play.cohort))
    assert due(play.state) == play.now + 1


def test_after_a_reconnection_the_edges_have_time_to_register_again() -> None:
    play = training(clients=2, per_round=2, quorum=2, deadline=60, grace=0).play("reconnect")
    assert due(play.state) == play.now + REREGISTRATION_GRACE


def test_an_evaluation_is_due_at_its_own_deadline() -> None:
    play = training(clients=2, per_round=2, evaluator=True, rounds=1, deadline=60)
    round_done(play.play("sleep 7"))
    assert play.state.phase.name == "evaluating"
    assert due(play.state) == play.now + 60
