"""An edge registers, loads its partition, and is admitted (protocol, section 4)."""

from __future__ import annotations

import pytest

from fl_edge.session.machine import next_due
from fl_edge.session.state import (
    AwaitingPartition,
    Confirming,
    Loading,
    Registering,
    RegistrationComplete,
    Stopped,
)
from fl_shared.protocol import messages as m
from tests.support.session_script import SessionScript, identity
from tests.support.session_steps import READY, ready, sent


def test_4_1_birth_comes_before_the_registration_and_names_the_same_session() -> None:
    assert SessionScript().texts("connected s1") == [
        "send fl/clients/7/presence (retained): online session=s1",
        "send fl/register/7: register session=s1",
    ]


def test_4_1_a_presence_overwritten_by_an_old_will_is_published_again() -> None:
    script = ready()
    again = ["send fl/clients/7/presence (retained): online session=s1"]
    assert script.texts("presence offline s0") == again
    assert script.texts("presence cleared") == again


@pytest.mark.parametrize("line", ["presence online s1", "presence online s9"])
def test_4_1_a_presence_that_is_online_is_left_alone(line: str) -> None:
    assert ready().texts(line) == []


def test_4_2_registration_is_repeated_with_growing_pauses() -> None:
    script = SessionScript()
    script.do("connected s1")
    pauses = []
    for _ in range(8):
        due = next_due(script.state)
        assert due is not None
        pauses.append(due - script.now)
        assert script.texts(f"time {pauses[-1] - 0.01}") == []
        assert script.texts("time 0.02") == ["send fl/register/7: register session=s1"]
    assert 1 <= pauses[0] < 2
    assert all(15 <= later <= 30 for later in pauses[5:])
    assert pauses[:5] == sorted(pauses[:5])


def test_4_2_it_registers_again_when_a_new_start_of_the_aggregator_comes_online() -> None:
    script = ready()
    script.do("aggregator online a1 incarnation=1 retained")
    assert script.texts("aggregator online a1 incarnation=1") == []
    assert script.texts("aggregator online a2 incarnation=1") == ["send fl/register/7: register session=s1"]
    script.do("admitted part=7/20", "admitted part=7/20")
    assert isinstance(script.session.registration, RegistrationComplete)
    assert script.texts("aggregator offline a1 incarnation=1") == [], "the will of an older session"
    assert script.texts("aggregator online a3 incarnation=2") == ["send fl/register/7: register session=s1"]


def test_4_2_a_retained_birth_does_not_double_the_registration() -> None:
    script = SessionScript()
    script.do("connected s1")
    assert script.texts("aggregator online a1 retained") == []
    assert script.texts("aggregator online a2") == ["send fl/register/7: register session=s1"]


def test_4_2_a_member_stays_with_the_first_of_two_runs_until_it_is_offline() -> None:
    script = SessionScript()
    script.do("connected s1", "aggregator online a1", "admitted part=7/20")
    assert script.texts("aggregator online b1 run=other") == []
    assert script.do("admitted part=7/20 run=other") == ()
    assert script.texts("aggregator offline a1") == []
    assert script.texts("aggregator online b1 run=other") == ["send fl/register/7: register session=s1"]


def test_4_3_replies_to_other_sessions_are_ignored() -> None:
    script = SessionScript()
    script.do("connected s1")
    assert script.do("admitted part=7/20 session=s0") == ()
    assert script.do("refused id-in-use session=s0") == ()
    assert isinstance(script.session.registration, Registering)


def test_4_3_while_parts_are_not_given_out_it_waits_and_asks_again_slowly() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted")
    assert isinstance(script.session.registration, AwaitingPartition)
    due = next_due(script.state)
    assert due is not None
    assert due >= 10
    assert script.texts(f"time {due}") == ["send fl/register/7: register session=s1"]
    assert isinstance(script.session.registration, AwaitingPartition)
    assert script.texts("admitted part=3/20")[-1] == "load job=0 digits part=3/20"


def test_4_4_second_registration_follows_loading_and_is_repeated_until_answered() -> None:
    script = SessionScript()
    script.do("connected s1")
    assert "load job=0 digits part=7/20" in script.texts("admitted part=7/20")
    assert isinstance(script.session.registration, Loading)
    second = "send fl/register/7: register session=s1 run=R incarnation=1 examples=40"
    assert second in script.texts("loaded 0")
    assert script.texts("time 2") == [second]
    assert isinstance(script.session.registration, Confirming)
    script.do("admitted part=7/20")
    assert isinstance(script.session.registration, RegistrationComplete)
    assert next_due(script.state) is None


def test_4_3_a_late_answer_to_the_first_registration_does_not_pass_for_one_to_the_second() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "loaded 0")
    assert script.texts("admitted part=7/20 answers=first") == []
    assert isinstance(script.session.registration, Confirming)
    assert script.texts("admitted part=7/20") == ["say registered for run R with 40 examples"]


def test_4_4_an_edge_that_does_not_train_registers_once() -> None:
    script = SessionScript(identity(roles=("predict",)))
    script.do("connected s1")
    assert script.texts("admitted") == ["say admitted to run R (digits)"]
    assert isinstance(script.session.registration, RegistrationComplete)


def test_4_4_after_a_reconnect_the_part_is_not_loaded_again() -> None:
    script = ready()
    assert script.texts("lost") == []
    script.do("connected s2")
    assert script.texts("admitted part=7/20") == [
        "send fl/register/7: register session=s2 run=R incarnation=1 examples=40"
    ]


def test_another_part_is_loaded_anew() -> None:
    script = ready()
    script.do("aggregator online a2 incarnation=2")
    assert "load job=1 digits part=8/20" in script.texts("admitted part=8/20 incarnation=2")
    assert "load job=2 digits part=9/20" in script.texts("admitted part=9/20 incarnation=2")
    assert script.do("loaded 1") == (), "that of the part before"
    assert script.texts("loaded 2")[-1].endswith("incarnation=2 examples=40")


def test_a_part_that_is_loaded_while_offline_is_confirmed_after_the_reconnect() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "lost")
    assert sent(script.do("loaded 0")) == []
    script.do("connected s2")
    assert len(sent(script.do("admitted part=7/20"))) == 1


@pytest.mark.parametrize(
    "reason", ["id-in-use", "wrong-version", "wrong-task", "wrong-manifest", "no-partition-left"]
)
def test_4_6_refused_means_exit_2_with_the_reason(reason: str) -> None:
    script = SessionScript()
    script.do("connected s1")
    texts = script.texts(f"refused {reason}")
    assert isinstance(script.state, Stopped)
    assert script.state.exit_code == 2
    assert reason in script.state.reason
    assert texts[-2:] == ["send fl/clients/7/presence (retained): offline session=s1", "disconnect"]


def test_an_edge_without_the_task_says_which_it_has() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20 task=cifar10")
    assert isinstance(script.state, Stopped)
    assert script.state.exit_code == 2
    assert "'cifar10'" in script.state.reason
    assert "digits, mnist" in script.state.reason


@pytest.mark.parametrize(
    ("task", "has"), [("synthetic-5", True), ("synthetic-", False), ("synthetic-x", False)]
)
def test_a_family_of_tasks_has_a_number(task: str, has: bool) -> None:
    script = SessionScript(identity(task_prefixes=("synthetic-",)))
    script.do("connected s1", f"admitted part=7/20 task={task}")
    assert isinstance(script.state, Stopped) is not has
    if isinstance(script.state, Stopped):
        assert "digits, mnist, synthetic-N" in script.state.reason


def test_an_edge_that_insists_on_a_task_trains_no_other() -> None:
    script = SessionScript(identity(task="mnist"))
    script.do("connected s1", "admitted part=7/20 task=digits")
    assert isinstance(script.state, Stopped)
    assert script.state.exit_code == 2


def test_missing_data_is_the_users_mistake_and_a_dead_worker_is_not() -> None:
    missing = SessionScript()
    missing.do("connected s1", "admitted part=7/20", "failed 0 put train.gz into /data user=yes")
    assert missing.state == Stopped(identity(), 2, "put train.gz into /data")
    dead = SessionScript()
    dead.do("connected s1", "admitted part=7/20")
    assert "load job=1 digits part=7/20" in dead.texts("failed 0 killed")
    assert "load job=2 digits part=7/20" in dead.texts("failed 1 killed")
    dead.do("failed 2 killed")
    assert isinstance(dead.state, Stopped)
    assert dead.state.exit_code == 1


def test_4_8_both_registrations_offer_the_encodings_of_the_edge() -> None:
    script = SessionScript(identity(encodings=("f32", "q8")))
    registrations = [
        message for line in READY for message in sent(script.do(line)) if isinstance(message, m.Registration)
    ]
    assert [(one.run, one.encodings) for one in registrations] == [
        (None, ("f32", "q8")),
        ("R", ("f32", "q8")),
    ]
