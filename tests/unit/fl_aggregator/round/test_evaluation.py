"""Evaluations beside the rounds, and the history that waits for them; `docs/protocol.md`, 3.7 and 5.11."""

from __future__ import annotations

import pytest

from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.phases import Buffering, Collecting, Evaluating, Failed, Finished, Stopped
from fl_shared.protocol.messages import ModelReference
from tests.support.round_playbook import Playbook, round_done, training
from tests.support.round_text import describe, describe_phase
from tests.support.versions import digest_of


def published(playbook: Playbook) -> list[str]:
    """For each version, on which split edges were asked to evaluate it."""
    lines = (describe(effect).split() for _, effects in playbook.told for effect in effects)
    return [" ".join((words[1], words[3])) for words in lines if words[0] == "publish"]


def test_a_version_is_evaluated_beside_the_next_round() -> None:
    """3.7: `test`, by edges with the role `evaluate`; the round's line in the history waits for it."""
    playbook = training(clients=2, per_round=1, evaluator=True)
    (a,) = playbook.cohort
    assert (
        playbook
        >> f"send {a}"
        << "keep"
        << "accept"
        << "fold"
        << "average 1"
        << "publish v1 evaluate=test"
        << "result 1 committed v1"
        << "withdraw 1"
        << "announce 2"
        >> "sleep 2"
        >> "evaluate e 1 0.75 loss=0.5 examples=40"
        << "result 1 committed v1 accuracy=0.75 evaluated_examples=40 loss=0.5 evaluating=2s"
        << "best v1"
        << "history 1 committed v1 accuracy=0.75"
    )
    assert playbook.state.metrics == {"version": 1, "accuracy": 0.75, "loss": 0.5, "evaluated_examples": 40}


def test_a_report_on_a_mean_is_the_result_of_its_newest_version() -> None:
    playbook = training(clients=2, per_round=1, evaluator=True, serve="average:2")
    round_done(playbook)
    playbook.play("evaluate e 1 0.5")
    playbook.auto = False
    (a,) = playbook.cohort
    playbook.play(f"send {a}")
    stored = next(e.update for e in playbook.told[-1][1] if isinstance(e, do.StoreUpdate))
    playbook.play(on.UpdateStored(now=playbook.now, update=stored))
    mean = digest_of(77)
    playbook.play(on.ModelCreated(now=playbook.now, round=2, digest=digest_of(2), manifest="M", served=mean))
    (made,) = [e for e in playbook.told[-1][1] if isinstance(e, do.PublishModel)]
    assert made.model == playbook.collecting.base == ModelReference(version=2, digest=digest_of(2))
    assert made.served == ModelReference(version=2, digest=mean)
    playbook.play("evaluate e 2 0.8 model=77")
    assert playbook.state.metrics == pytest.approx(
        {"version": 2, "accuracy": 0.8, "loss": 0.5, "evaluated_examples": 10}
    )
    (line,) = [e.summary for e in playbook.told[-1][1] if isinstance(e, do.WriteHistory)]
    assert line.metrics["accuracy"] == 0.8
    assert line.model == ModelReference(version=2, digest=digest_of(2))
    assert line.first_served == 1
    assert any(isinstance(e, do.StoreBest) and e.model.version == 2 for e in playbook.told[-1][1])


def test_without_an_evaluator_training_edges_report_on_their_holdouts() -> None:
    """3.7: "`holdout` (training edges, on what they hold out)"."""
    playbook = training(clients=2, per_round=2, holdout=0.2)
    round_done(playbook)
    assert published(playbook)[-1] == "v1 evaluate=holdout"
    assert (
        playbook
        >> "evaluate 0 1 0.5 split=holdout"
        >> "evaluate 1 1 0.7 split=holdout"
        << "result 1"
        << ("best v1")
        << "history 1 accuracy=0.6"
    )


def test_with_neither_evaluator_nor_holdout_nothing_is_evaluated() -> None:
    """3.7: null; the history does not wait."""
    playbook = training(clients=1, per_round=1, holdout=0)
    assert (
        playbook
        >> "send 0"
        << "keep"
        << "accept"
        << "fold"
        << "average"
        << "publish v1 evaluate=-"
        << ("result 1")
        << "withdraw 1"
        << "history 1"
        << "announce 2"
    )


def test_every_so_many_versions_are_evaluated_and_the_last_one_always() -> None:
    """`--evaluate-every`; first weights never."""
    playbook = training(clients=1, per_round=1, rounds=5, evaluate_every=2, evaluator=True, holdout=0)
    for version in range(1, 6):
        round_done(playbook)
        playbook.play(f"evaluate e {version} 0.5")
    assert published(playbook) == [
        "v0 evaluate=-",
        "v1 evaluate=-",
        "v2 evaluate=test",
        "v3 evaluate=-",
        "v4 evaluate=test",
        "v5 evaluate=test",
    ]
    assert isinstance(playbook.state.phase, Finished)


def test_an_asynchronous_run_evaluates_a_version_in_five_seconds_and_always_the_last_one() -> None:
    playbook = training(
        mode="async", clients=2, concurrency=2, buffer=1, rounds=5, wait=1e6, evaluator=True, holdout=0
    )
    for version, seconds in enumerate((1, 4.5, 0.5, 30, 0), start=1):
        assert isinstance(playbook.state.phase, Buffering)
        playbook.play(f"sleep {seconds}", f"send {min(playbook.state.phase.tickets)}")
        playbook.play(f"evaluate e {version} 0.5")
    assert published(playbook) == [
        "v0 evaluate=-",
        "v1 evaluate=test",
        "v2 evaluate=-",  # 4.5 s later
        "v3 evaluate=test",
        "v4 evaluate=test",  # none was made meanwhile
        "v5 evaluate=test",
    ]
    assert isinstance(playbook.state.phase, Finished)


def test_an_asynchronous_run_evaluates_as_many_as_the_user_says() -> None:
    playbook = training(
        mode="async",
        clients=2,
        concurrency=2,
        buffer=1,
        rounds=4,
        evaluate_every=2,
        evaluator=True,
        holdout=0,
    )
    for version in range(1, 5):
        assert isinstance(playbook.state.phase, Buffering)
        playbook.play(f"send {min(playbook.state.phase.tickets)}", f"evaluate e {version} 0.5")
    splits = [line.partition("=")[2] for line in published(playbook)]
    assert splits == ["-", "-", "test", "-", "test"]


def test_the_run_ends_only_when_its_last_version_was_evaluated() -> None:
    playbook = training(clients=1, per_round=1, rounds=1, evaluator=True, holdout=0)
    round_done(playbook)
    assert isinstance(playbook.state.phase, Evaluating)
    assert playbook >> "wait 100" >> "evaluate e 1 0.5" << "result 1" << "best v1" << "history 1" << "end"


def test_an_evaluator_that_is_lost_is_not_waited_for() -> None:
    """After the grace; the version then has no accuracy."""
    playbook = training(clients=1, per_round=1, rounds=1, evaluator=True, grace=5, holdout=0)
    round_done(playbook)
    assert playbook >> "lose e" >> "wait 4.9" >> "wait 0.1" << "history 1 committed v1" << "end"
    assert playbook.state.best is None


def test_an_evaluator_that_comes_back_in_time_is_heard() -> None:
    playbook = training(clients=1, per_round=1, rounds=1, evaluator=True, grace=5, holdout=0)
    round_done(playbook)
    playbook.play("lose e", "sleep 4", "rejoin e", "sleep 50")
    assert playbook >> "evaluate e 1 0.5" << "result 1" << "best v1" << "history 1" << "end"


def test_an_evaluator_whose_link_blinks_at_the_commit_is_asked_all_the_same() -> None:
    """The announcement is retained: it finds it when it is back."""
    playbook = training(clients=1, per_round=1, rounds=1, evaluator=True, grace=5, holdout=0)
    playbook.play("lose e")
    round_done(playbook)
    assert published(playbook)[-1] == "v1 evaluate=test"
    playbook.play("rejoin e")
    assert playbook >> "evaluate e 1 0.5" << "result 1" << "best v1" << "history 1" << "end"


def test_the_last_version_is_evaluated_though_our_own_connection_was_just_gone() -> None:
    playbook = training(clients=1, per_round=1, rounds=1, evaluator=True, grace=0, holdout=0)
    playbook.play("reconnect")
    round_done(playbook)
    playbook.play("rejoin e", "wait 30")
    assert playbook >> "evaluate e 1 0.5" << "result 1" << "best v1" << "history 1" << "end"


def test_an_evaluator_that_is_gone_for_good_is_replaced_by_the_holdouts() -> None:
    playbook = training(clients=1, per_round=1, evaluator=True, grace=0, holdout=0.2)
    playbook.play("lose e")
    round_done(playbook)
    assert published(playbook)[-1] == "v1 evaluate=holdout"


def test_an_evaluation_has_a_deadline_and_takes_what_came_in() -> None:
    """As long as that of a round."""
    playbook = training(clients=3, per_round=3, rounds=1, holdout=0.2, deadline=60)
    round_done(playbook)
    playbook.play("evaluate 1 1 0.5 split=holdout")
    assert (
        playbook >> "wait 59.9" >> "wait 0.1" << "result 1 accuracy=0.5" << "best v1" << "history 1" << "end"
    )


def test_who_was_not_asked_and_who_answers_twice_does_not_count() -> None:
    """5.11: "once a version"."""
    playbook = training(clients=2, per_round=1, evaluator=True)
    playbook.play("join f roles=evaluate")
    round_done(playbook)
    before = playbook.state
    assert playbook >> "evaluate stranger 1 0.1" >> "evaluate 0 1 0.1"
    assert playbook.state is before
    playbook.play("evaluate e 1 0.5", "evaluate e 1 0.9")
    assert playbook >> "evaluate f 1 0.5" << "result 1 accuracy=0.5" << "best" << "history"


def test_who_has_nothing_to_report_is_not_waited_for() -> None:
    """5.11: "could not evaluate, says so with `examples` 0"."""
    playbook = training(clients=2, per_round=2)
    round_done(playbook)
    assert playbook >> "evaluate 0 1 0 examples=0 split=holdout"
    assert playbook >> "evaluate 1 1 0.5 split=holdout" << "result 1 accuracy=0.5" << "best v1" << "history 1"
    round_done(playbook)
    playbook.play("evaluate 0 2 0 examples=0 split=holdout")
    assert playbook >> "evaluate 1 2 0 examples=0 split=holdout" << "history 2"


def test_who_answers_for_a_newer_version_is_not_waited_for_with_an_older_one() -> None:
    """5.11: "The newest version comes first; older ones may be skipped"."""
    playbook = training(clients=1, per_round=1, evaluator=True)
    round_done(playbook)
    round_done(playbook)
    assert (
        playbook
        >> "evaluate e 2 0.5"
        << "result 2 accuracy=0.5"
        << "best v2"
        << ("history 1 committed v1 by=0 examples=10")
        << "history 2 accuracy=0.5"
    )


def test_a_report_on_an_older_version_leaves_the_newer_one_open() -> None:
    playbook = training(clients=1, per_round=1, evaluator=True)
    round_done(playbook)
    round_done(playbook)
    assert playbook >> "evaluate e 1 0.5" << "result 1" << "best v1" << "history 1"
    assert playbook >> "evaluate e 2 0.6" << "result 2" << "best v2" << "history 2"


def test_a_late_report_on_an_older_version_does_not_replace_the_newest_metrics() -> None:
    playbook = Playbook(clients=1, per_round=1, grace=0)
    playbook.play("start", "join e roles=evaluate", "join f roles=evaluate", "join 0", "load 0", "send 0")
    round_done(playbook)
    playbook.play("lose f")
    round_done(playbook)
    playbook.play("rejoin f")
    assert playbook >> "evaluate e 2 0.6" << "result 2 accuracy=0.6" << "best v2", "which f was not asked for"
    assert (
        playbook >> "evaluate f 1 0.7" << "result 1 accuracy=0.7" << "best v1" << "history 1" << "history 2"
    )
    assert playbook.state.metrics["version"] == 2
    assert playbook.state.metrics["accuracy"] == 0.6


def test_a_report_on_another_split_does_not_count() -> None:
    playbook = training(clients=1, per_round=1, rounds=1, holdout=0.2)
    round_done(playbook)
    assert playbook >> "evaluate 0 1 0.9 split=test" << "history 1 committed v1 by=0 examples=10" << "end"
    assert playbook.state.best is None


def test_lines_are_written_in_the_order_of_the_rounds() -> None:
    """An abandoned round waits for the committed one before it."""
    playbook = training(clients=1, per_round=1, evaluator=True)
    round_done(playbook)
    playbook.play("fail 0", "wait 1")
    assert playbook.invariants.results == [0, 1, 2]
    assert playbook.invariants.written == []
    playbook.play("evaluate e 1 0.5")
    assert playbook.invariants.written == [1, 2]


def test_the_best_version_is_kept() -> None:
    """The first of equally good ones."""
    playbook = training(clients=1, per_round=1, evaluator=True)
    best = []
    for version, accuracy in enumerate((0.5, 0.4, 0.5, 0.6), start=1):
        round_done(playbook)
        playbook.play(f"evaluate e {version} {accuracy}")
        effects = playbook.told[-1][1]
        best.append([describe(effect) for effect in effects if describe(effect).startswith("best")])
    assert best == [["best v1"], [], [], ["best v4"]]
    assert playbook.state.best == 0.6


def test_versions_that_were_measured_on_two_splits_are_not_compared() -> None:
    """What an evaluator measures decides, however good a holdout is before it comes or while it is away."""
    playbook = training(clients=1, per_round=1, holdout=0.2, grace=0)
    best = []
    for before, evaluated in (
        ("tick", "0 1 0.9 split=holdout"),
        ("join e roles=evaluate", "e 2 0.5"),
        ("lose e", "0 3 0.95 split=holdout"),
        ("rejoin e", "e 4 0.6"),
    ):
        playbook.play(before)
        round_done(playbook)
        playbook.play(f"evaluate {evaluated}")
        effects = playbook.told[-1][1]
        best.append([describe(effect) for effect in effects if describe(effect).startswith("best")])
    assert best == [["best v1"], ["best v2"], [], ["best v4"]]
    assert (playbook.state.best, playbook.state.best_split) == (0.6, "test")


def test_the_target_ends_the_run() -> None:
    """`--target`: every version is waited for, since its metrics decide whether there is a next round."""
    playbook = training(clients=1, per_round=1, rounds=9, target="accuracy=0.7", evaluator=True, holdout=0)
    round_done(playbook)
    assert isinstance(playbook.state.phase, Evaluating)
    assert (
        playbook >> "wait 5" >> "evaluate e 1 0.69" << "result 1" << "best v1" << "history 1" << "announce 2"
    )
    round_done(playbook)
    assert playbook >> "evaluate e 2 0.7" << "result 2" << "best v2" << "history 2" << "end"
    assert describe_phase(playbook.state) == "finished target"
    assert playbook.state.version == 2


def test_with_a_target_versions_that_nobody_evaluates_are_not_waited_for() -> None:
    playbook = training(
        clients=1, per_round=1, rounds=9, target="accuracy=0.7", evaluate_every=2, evaluator=True
    )
    round_done(playbook)
    assert isinstance(playbook.state.phase, Collecting)
    round_done(playbook)
    assert isinstance(playbook.state.phase, Evaluating)


def test_with_a_target_and_a_lost_evaluator_the_run_goes_on() -> None:
    playbook = training(
        clients=1, per_round=1, rounds=9, target="accuracy=0.7", evaluator=True, grace=0, holdout=0
    )
    round_done(playbook)
    assert playbook >> "lose e" << "history 1" << "announce 2"


def test_a_failed_run_has_all_its_lines() -> None:
    playbook = training(clients=1, per_round=1, wait=50, grace=0, evaluator=True)
    round_done(playbook)
    playbook.play("lose 0", "wait 1", "wait 1")
    assert playbook >> "wait 60" << "history 1 committed" << "history 2 abandoned" << "end"
    assert isinstance(playbook.state.phase, Failed)


def test_an_interrupted_run_takes_the_reports_that_are_there() -> None:
    playbook = Playbook(clients=1, per_round=1)
    playbook.play("start", "join e roles=evaluate", "join f roles=evaluate", "join 0", "load 0", "send 0")
    round_done(playbook)
    playbook.play("evaluate e 1 0.5")
    assert playbook >> "interrupt" << "result 1 accuracy=0.5" << "best v1" << "history 1" << "end"
    assert isinstance(playbook.state.phase, Stopped)


@pytest.mark.parametrize("wrong", ["session=e.0", "model=7"])
def test_a_report_of_another_session_or_about_another_model_does_not_count(wrong: str) -> None:
    playbook = training(clients=2, per_round=1, evaluator=True)
    round_done(playbook)
    before = playbook.state.metrics
    playbook.play(f"evaluate e 1 1.0 {wrong}")
    assert playbook.state.metrics == before
    playbook.play("evaluate e 99 1.0", "evaluate e 1 0.5")
    assert playbook.state.metrics["accuracy"] == 0.5, (
        "a report on the future does not end the wait for the present"
    )


def test_nobody_waits_for_an_evaluator_that_finds_that_it_cannot() -> None:
    """Its test split is missing, for example."""
    playbook = training(clients=1, per_round=1, rounds=1, evaluator=True, holdout=0)
    round_done(playbook)
    assert (
        playbook
        >> "join e unable=no-test-split"
        << "refuse e unable no-test-split"
        << "history 1 committed v1"
        << "end"
    )


def test_5_17_a_model_without_its_local_part_is_evaluated_where_the_part_is() -> None:
    playbook = training(clients=2, per_round=1, keep_local=("batchnorm",))
    assert playbook >> "join e roles=evaluate" << "refuse e lacks-ability *--keep-local*"
    assert playbook >> "join both roles=predict,evaluate" << "admit both part=-"
    round_done(playbook)
    assert published(playbook)[-1] == "v1 evaluate=holdout"
