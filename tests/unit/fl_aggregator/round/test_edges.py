"""What a version is worth at each edge: of whom a round says so, and which edge is the worst."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Evaluating
from fl_aggregator.round.snapshot import Snapshot
from fl_aggregator.round.state import Summary
from fl_aggregator.round.summary import summary_of
from tests.support.builders import MAE
from tests.support.round_playbook import Playbook, round_done, training
from tests.support.versions import digest_of


def result(playbook: Playbook) -> Summary:
    """The newest one."""
    return [e.summary for _, effects in playbook.told for e in effects if isinstance(e, do.PublishResult)][-1]


def sent(playbook: Playbook, metric: str, *values: float) -> Summary:
    for client, value in zip(playbook.cohort, values, strict=True):
        playbook.play(f"send {client} round={playbook.round} before.{metric}={value}")
    return result(playbook)


def test_a_round_says_what_its_base_was_worth_at_each_participant() -> None:
    playbook = training(clients=3, per_round=3)
    cohort = playbook.cohort
    found = sent(playbook, "accuracy", 0.5, 0.9, 0.7)
    assert dict(found.edges) == dict(zip(cohort, (0.5, 0.9, 0.7), strict=True))
    assert found.edges_version == 0
    assert found.metrics["edges_mean"] == pytest.approx(0.7)
    assert found.metrics["edges_p10"] == pytest.approx(0.54)
    assert found.metrics["edges_worst"] == 0.5


def test_of_an_error_the_worst_value_is_the_largest() -> None:
    playbook = training(clients=3, per_round=3, declared=(MAE,))
    found = sent(playbook, "mae", 20.0, 30.0, 25.0)
    assert found.metrics["edges_worst"] == 30.0
    assert found.metrics["edges_p10"] == pytest.approx(29.0)


def test_a_value_that_cannot_be_is_left_out() -> None:
    playbook = training(clients=2, per_round=2)
    assert list(sent(playbook, "accuracy", 0.5, 1.5).edges.values()) == [0.5]
    assert "edges_mean" not in sent(playbook, "loss", 0.5, 0.5).metrics


def test_values_that_are_as_large_as_can_be_have_a_mean() -> None:
    playbook = training(clients=3, per_round=3, declared=())
    found = sent(playbook, "loss", 1e308, 1e308, -1e308)
    assert found.metrics["edges_mean"] == pytest.approx(1e308 / 3)
    assert found.metrics["edges_p10"] == pytest.approx(1e308)


def test_what_began_from_an_older_version_does_not_count() -> None:
    playbook = training(clients=3, per_round=3)
    playbook.play(
        f"send {playbook.cohort[0]} before.accuracy=0.5", f"send {playbook.cohort[1]} before.accuracy=0.9"
    )
    phase = playbook.collecting
    fresh, stale = phase.updates.values()
    phase = replace(phase, updates={fresh.client: fresh, stale.client: replace(stale, staleness=1)})
    assert dict(summary_of(playbook.state, phase, 0, 0).edges) == {fresh.client: 0.5}


def last_round(**settings: Any) -> Playbook:
    return round_done(training(clients=3, per_round=1, rounds=1, evaluator=True, holdout=0.2, **settings))


def test_at_the_end_every_training_edge_that_is_there_is_asked() -> None:
    playbook = last_round()
    playbook.play("lose 2", "wait 6")
    assert (
        playbook
        >> "evaluate e 1 0.75 examples=40"
        << "result 1 accuracy=0.75"
        << "best v1"
        << ("publish v1 round=1 evaluate=holdout")
    )
    assert isinstance(playbook.state.phase, Evaluating)
    playbook.play("evaluate 0 1 0.5 split=holdout")
    assert (
        playbook
        >> "evaluate 1 1 0.875 split=holdout"
        << "result 1 accuracy=0.75 edges_worst=0.5 evaluated_examples=40"
        << "history 1"
        << "end"
    )
    found = result(playbook)
    assert (dict(found.edges), found.edges_version, found.split) == ({"0": 0.5, "1": 0.875}, 1, "test")
    assert (playbook.state.best, playbook.state.split) == (0.75, "test")


def test_who_does_not_answer_is_not_waited_for_longer_than_a_round() -> None:
    playbook = last_round(deadline=60)
    playbook.play("evaluate e 1 0.75", "evaluate 0 1 0.5 split=holdout")
    assert playbook >> "wait 59.9" >> "wait 0.1" << "result 1 edges_mean=0.5" << "history 1" << "end"


def test_holdouts_take_the_place_of_an_evaluator_that_never_answered() -> None:
    playbook = last_round(grace=5)
    assert playbook >> "lose e" >> "wait 5" << "publish v1 round=1 evaluate=holdout"
    playbook.play("evaluate 0 1 0.5 split=holdout", "evaluate 1 1 0.5 split=holdout")
    assert (
        playbook
        >> "evaluate 2 1 0.8 split=holdout"
        << "result 1 accuracy=0.6"
        << "best v1"
        << "history 1"
        << "end"
    )
    assert playbook.state.split == "holdout"


def test_a_target_ends_the_run_with_all_edges() -> None:
    playbook = training(clients=1, per_round=1, rounds=9, target="accuracy=0.7", evaluator=True)
    round_done(playbook)
    assert (
        playbook
        >> "evaluate e 1 0.7"
        << "result 1"
        << "best v1"
        << "publish v1 round=1 evaluate=holdout"
        >> "evaluate 0 1 0.5 split=holdout"
        << "result 1"
        << "history 1"
        << "end"
    )


def test_a_resumed_run_asks_the_edges_again_and_keeps_the_state_of_its_strategy() -> None:
    playbook = training(clients=1, per_round=1, rounds=1, evaluator=True, serve="average:2")
    snapshot = Snapshot(playbook.state)
    playbook.auto = False
    playbook.play("send 0")
    stored = next(e.update for e in playbook.told[-1][1] if isinstance(e, do.StoreUpdate))
    playbook.play(on.UpdateStored(now=playbook.now, update=stored))
    playbook.play(
        on.ModelCreated(
            now=playbook.now,
            round=1,
            digest=digest_of(1),
            manifest="M",
            strategy_state="S",
            served=digest_of(77),
        )
    )
    playbook.play("evaluate e 1 0.7 model=77")
    for _, effects in playbook.told:
        snapshot.add(playbook.now, playbook.state, effects)
    again = snapshot.models[1]
    assert (again.evaluate, again.strategy_state) == ("holdout", "S")
    assert again.served is not None
