"""A selected edge fetches the base, trains, and stops when the round is over (protocol, section 5)."""

from __future__ import annotations

import pytest

from fl_edge.session import machine
from fl_edge.session.effects import Fetch, LogNotice, Train
from fl_edge.session.work import (
    Fetching,
    Idle,
    Training,
)
from fl_shared.protocol import messages as m
from tests.support.session_script import SessionScript, update, version_digest
from tests.support.session_steps import READY, TRAINS, ready, sent


def test_5_2_fetches_the_base_then_trains_then_reports() -> None:
    script = ready()
    assert script.texts("selected 1") == [
        "say selected for round 1",
        f"fetch job=1 {version_digest(0)[:12]} within 600 s",
    ]
    assert script.texts("fetched 1") == ["train job=1 round=1 from version 0 part=7/20"]
    [message] = sent(script.do("trained 1"))
    assert isinstance(message, m.Update)
    assert (message.round, message.client, message.session, message.run) == (1, "7", "s1", "R")
    assert message.digest == update().digest


def test_5_3_round_0_makes_the_first_weights_without_a_base() -> None:
    script = ready()
    assert script.texts("selected 0")[-1] == "train job=1 round=0 first weights part=7/20"
    [message] = sent(script.do("trained 1 base=none"))
    assert isinstance(message, m.Update)
    assert message.base is None
    assert message.sections[0].arrays is not None


def test_who_is_not_in_the_cohort_does_nothing() -> None:
    script = ready()
    assert script.do("selected 1 cohort=8,9") == ()
    assert script.texts("selected 1 cohort=8,9,7")[0] == "say selected for round 1", "called as a substitute"


def test_5_1_a_personal_selection_needs_no_cohort() -> None:
    script = ready()
    assert script.texts("selected 1 work")[0] == "say selected for round 1"


def test_a_selection_seen_before_the_admission_is_taken_up_after_loading() -> None:
    script = SessionScript()
    script.do("connected s1")
    assert script.do("selected 3") == ()
    assert not any(isinstance(effect, Fetch) for effect in script.do("admitted part=7/20"))
    assert any(isinstance(effect, Fetch) for effect in script.do("loaded 0"))


def test_5_5_a_round_whose_update_is_held_is_not_trained_again() -> None:
    script = SessionScript()
    script.do("connected s1", "selected 3", "admitted part=7/20 finished_round=3")
    assert not any(isinstance(effect, Fetch | Train) for effect in script.do("loaded 0"))
    assert any(isinstance(effect, Fetch) for effect in script.do("selected 4"))


@pytest.mark.parametrize(("newest", "goes_on"), [(1, True), (2, False)])
def test_5_7_training_ends_with_the_admission_of_an_edge_that_has_missed_the_end_of_its_round(
    newest: int, goes_on: bool
) -> None:
    script = ready()
    script.do("selected 1", "lost", "connected s2")
    script.do(f"admitted part=7/20 newest_round={newest}")
    assert isinstance(script.session.work, Fetching) == goes_on
    if not goes_on:
        assert script.do("selected 1") == (), "it is not taken up again"


def test_4_3_another_run_or_incarnation_is_not_obeyed() -> None:
    script = ready()
    assert script.do("selected 5 run=ghost") == ()
    assert script.texts("selected 5 incarnation=2") == ["send fl/register/7: register session=s1"], (
        "it has missed a birth"
    )
    assert isinstance(script.session.work, Idle)
    assert "say selected for round 5" in script.texts("admitted part=7/20 incarnation=2")


def test_the_same_selection_again_changes_nothing() -> None:
    script = SessionScript()
    script.do(*TRAINS)
    assert script.do("selected 1 cohort=7,8,9") == ()
    script.do("trained 1", "accepted 1")
    assert script.do("selected 1") == ()


@pytest.mark.parametrize("phase", ["fetching", "training"])
@pytest.mark.parametrize(
    ("line", "stops"),
    [
        ("result 1", True),
        ("cleared 1", True),
        ("selected 2 cohort=8", True),
        ("selected 2", True),
        ("result 0", False),
        ("result 1 run=ghost", False),
        ("cleared 2", False),
        ("cleared work", False),
        ("selected 2 run=ghost", False),
        ("selected 0", False),
        ("lost", False),
        ("connected s2", False),
        ("time 100000", False),
        ("aggregator offline a1", False),
        ("aggregator online a2", False),
        ("presence offline s0", False),
        ("admitted part=7/20", False),
        ("admitted part=7/20 incarnation=2", False),
        ("admitted part=7/20 run=other", False),
    ],
)
def test_5_7_what_stops_training(phase: str, line: str, stops: bool) -> None:
    script = SessionScript()
    script.do(*(TRAINS if phase == "training" else TRAINS[:-1]))
    texts = script.texts(line)
    assert ("cancel job=1" in texts) is stops
    work = script.session.work
    assert (isinstance(work, Training | Fetching) and work.job == 1) is not stops


def test_5_7_clearing_the_own_topic_stops_what_came_on_it() -> None:
    script = ready()
    script.do("selected 1 work", "fetched 1")
    assert "cancel job=1" in script.texts("cleared work")


def test_5_2_a_failure_is_told_until_the_round_is_over() -> None:
    script = SessionScript()
    script.do(*TRAINS)
    failed = "send fl/updates/7: failed session=s1 incarnation=1 round=1: the worker was killed"
    assert failed in script.texts("failed 1 the worker was killed")
    assert script.texts("time 10") == [failed]
    script.do("lost", "connected s2")
    assert failed.replace("s1", "s2") in script.texts("admitted part=7/20")
    script.do("result 1")
    assert isinstance(script.session.work, Idle)
    assert machine.due(script.state) is not None, "of the registration"


@pytest.mark.parametrize("able", [True, False])
def test_4_11_what_an_edge_can_do_is_known_when_its_task_is_loaded(able: bool) -> None:
    """It tells at first what some tasks, on some devices, can do."""
    script = SessionScript()
    script.do(*[f"{line} abilities=bf16" if line == "loaded 0" and able else line for line in READY])
    result = sent(script.do("selected 1 precision=bf16"))
    if able:
        assert result == []
    else:
        assert isinstance(result[0], m.TrainingFailed)
        assert result[0].detail.startswith("the run needs bf16 (torch 2.11 or later")


def test_5_12_an_edge_that_does_not_know_the_encoding_of_the_round_says_so() -> None:
    script = ready()
    [failed] = sent(script.do("selected 1 encoding=q4"))
    assert isinstance(failed, m.TrainingFailed)
    assert (failed.round, failed.detail) == (
        1,
        "encoding in the selection: 'q4', but this edge can send updates in "
        + " or ".join(map(repr, ("bf16", "f32", "q8", "shuffle-deflate", "topk"))),
    )
    assert [type(effect) for effect in script.do("selected 2")] == [LogNotice, LogNotice, Fetch]
