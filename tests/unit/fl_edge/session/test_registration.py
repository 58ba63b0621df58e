"""An edge registers, loads its partition, and is admitted (protocol, section 4)."""

from __future__ import annotations

import pytest

from fl_edge.session import machine
from fl_edge.session.effects import Send
from fl_edge.session.events import PartitionLoaded
from fl_edge.session.state import (
    AwaitingPartition,
    Confirming,
    Loading,
    Registering,
    RegistrationComplete,
    Stopped,
)
from fl_shared.protocol import messages as m
from fl_shared.system.frozen import replace
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


def test_4_12_it_registers_again_when_the_bridge_of_its_broker_is_back() -> None:
    script = ready()
    assert script.texts("bridge 1") == [], "it was never lost"
    assert script.texts("bridge 0") == []
    assert script.texts("bridge 1") == ["send fl/register/7: register session=s1"]
    assert script.texts("bridge 1") == []
    script.do("bridge 0", "lost")
    assert script.texts("bridge 1") == [], "there is no connection to register on"


def test_4_12_the_registration_names_the_broker() -> None:
    script = SessionScript(identity(via="B"))
    registration = sent(script.do("connected s1"))[-1]
    assert isinstance(registration, m.Registration)
    assert registration.via == "B"


def test_4_2_registration_is_repeated_with_growing_pauses() -> None:
    script = SessionScript()
    script.do("connected s1")
    pauses = []
    for _ in range(8):
        due = machine.due(script.state)
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


@pytest.mark.parametrize(("words", "takes_part"), [("awaited", True), ("", False)])
def test_4_3_a_round_that_the_aggregator_has_lost_is_trained_again(words: str, takes_part: bool) -> None:
    script = SessionScript()
    script.do(
        "connected s1", "admitted part=7/20", "loaded 0", "admitted part=7/20", "selected 5", "fetched 1",
        "trained 1", "accepted 5", "lost", "connected s2",
    )  # fmt: skip
    script.do(f"admitted part=7/20 incarnation=2 newest_round=5 session=s2 {words}")
    said = script.texts("selected 5 incarnation=2")
    assert any("selected for round 5" in each for each in said) is takes_part, said


def test_4_3_an_update_of_a_round_that_the_aggregator_has_lost_is_dropped() -> None:
    script = SessionScript()
    script.do(
        "connected s1", "admitted part=7/20", "loaded 0", "admitted part=7/20", "selected 5", "fetched 1",
        "trained 1", "lost", "connected s2",
    )  # fmt: skip
    said = script.texts("admitted part=7/20 incarnation=2 newest_round=4 session=s2")
    assert any("no longer knows this round" in each for each in said), said
    assert script.session.last_handled_round <= 4


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
    due = machine.due(script.state)
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
    assert machine.due(script.state) is None


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), None),
        (("fc2.bias", "fc2.weight"), "fc2.bias, fc2.weight"),
        (tuple(f"{i:0100d}" for i in range(12)), f"{0:0100d}, {1:098d}"[:199] + "…"),
    ],
)
def test_4_15_second_registration_names_what_stays_on_the_edge(
    names: tuple[str, ...], told: str | None
) -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20")
    event = script.event("loaded 0")
    assert isinstance(event, PartitionLoaded)
    registrations = [e.message for e in script.happen(replace(event, local=names)) if isinstance(e, Send)]
    assert [m.Registration.model_validate(r.model_dump()).local_part for r in registrations] == [told]


def test_4_3_a_late_answer_to_the_first_registration_does_not_pass_for_one_to_the_second() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "loaded 0")
    assert script.texts("admitted part=7/20 answers=first") == []
    assert isinstance(script.session.registration, Confirming)
    assert script.texts("admitted part=7/20") == ["say registered for run R with 40 examples"]


def test_an_edge_that_trains_on_all_its_data_says_so() -> None:
    script = SessionScript()
    script.do("connected s1")
    assert script.texts("admitted part=7/20/own")[0] == "say admitted to run R (digits) with its own data"
    assert script.texts("loaded 0")[0] == "say loaded its own data: 40 examples, 10 held out"


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


def test_4_6_an_edge_without_a_place_asks_for_one_now_and_then() -> None:
    script = SessionScript()
    script.do("connected s1")
    assert script.texts("refused no-partition-left") == [
        "say error: does not take part in run R: no-partition-left: because; waiting for a place in it"
    ]
    for _ in range(5):
        due = machine.due(script.state)
        assert due is not None
        assert 10 <= due - script.now <= 30
        assert script.texts(f"time {due - script.now}") == ["send fl/register/7: register session=s1"]
        assert script.do("refused no-partition-left") == (), "said once"
    assert "load job=0 digits part=7/20" in script.texts("admitted part=7/20")


@pytest.mark.parametrize("reason", ["id-in-use", "wrong-role"])
def test_4_6_where_others_are_in_its_place_an_edge_exits_with_2(reason: str) -> None:
    script = SessionScript()
    script.do("connected s1")
    texts = script.texts(f"refused {reason}")
    assert isinstance(script.state, Stopped)
    assert script.state.exit_code == 2
    assert reason in script.state.reason
    bye = f"send fl/clients/7/presence (retained): offline session=s1: refused by run R: {reason}"
    assert texts[-2:] == [bye, "disconnect"]


@pytest.mark.parametrize("reason", ["wrong-version", "wrong-task", "wrong-manifest", "lacks-ability"])
def test_4_6_otherwise_a_refused_edge_waits_for_another_run(reason: str) -> None:
    script = SessionScript()
    script.do("connected s1")
    assert script.texts(f"refused {reason}") == [
        f"say error: does not take part in run R: {reason}: because; waiting for another run"
    ]
    assert machine.due(script.state) is None
    assert script.do("admitted part=7/20", "time 1000") == (), "a late reply"
    assert script.texts("aggregator online a2 run=S") == ["send fl/register/7: register session=s1"]
    assert "load job=0 digits part=7/20" in script.texts("admitted part=7/20 run=S")


def test_4_9_an_edge_without_the_task_tells_the_aggregator_and_waits_for_another_run() -> None:
    script = SessionScript()
    said, told = script.texts("connected s1", "admitted part=7/20 task=cifar10")
    why = "no task 'cifar10' here; it has: digits, mnist"
    assert said == f"say error: does not take part in run R: {why}; waiting for another run"
    assert told == f"send fl/register/7: unable session=s1 run=R incarnation=1: {why}"
    assert script.texts("time 3") == [told], "until it is answered"
    assert script.do("admitted part=7/20 task=cifar10") == (), "a late answer to the first registration"
    assert script.do("refused unable", "time 1000") == ()
    # The birth that the broker had retained is that of the same aggregator, a new incarnation may be different.
    assert script.do("aggregator online a1 retained") == ()
    assert script.texts("aggregator online a2 incarnation=2") == ["send fl/register/7: register session=s1"]
    assert "load job=0 digits part=7/20" in script.texts("admitted part=7/20 incarnation=2")


def test_an_edge_says_how_to_name_a_task_that_is_a_class() -> None:
    script = SessionScript()
    told = script.texts("connected s1", "admitted part=7/20 task=mine:Heat?window=5")[-1]
    assert told.endswith(
        "no task 'mine:Heat?window=5' here; it is a class, which only the edge's user may name: --task mine:Heat"
    )


def test_an_edge_without_the_task_of_a_run_hears_of_the_run_after_it() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20 task=cifar10")
    assert script.texts("aggregator online a2 run=S retained") == ["send fl/register/7: register session=s1"]


def test_an_edge_that_declines_after_its_connection_was_lost_registers_again() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "lost")
    assert [text[:4] for text in script.texts("failed 0 no-data user=yes")] == ["say "]
    assert script.session.membership is None
    assert script.texts("connected s2")[-1] == "send fl/register/7: register session=s2"


@pytest.mark.parametrize(
    ("task", "has"), [("synthetic-5", True), ("synthetic-", False), ("synthetic-x", False)]
)
def test_a_family_of_tasks_has_a_number(task: str, has: bool) -> None:
    script = SessionScript(identity(task_prefixes=("synthetic-",)))
    script.do("connected s1", f"admitted part=7/20 task={task}")
    assert (script.session.membership is not None) == has


def test_an_edge_that_insists_on_a_task_trains_no_other() -> None:
    script = SessionScript(identity(task="mnist"))
    told = script.texts("connected s1", "admitted part=7/20 task=digits")[-1]
    assert told.endswith("unable session=s1 run=R incarnation=1: its --task is 'mnist', not 'digits'")
    assert script.session.membership is None


def test_an_edge_whose_next_run_it_cannot_train_ends_the_work_of_the_first() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "aggregator online a2 run=S")
    assert "cancel job=0" in script.texts("admitted part=7/20 run=S task=cifar10")
    assert script.do("loaded 0") == ()


def test_missing_data_is_the_users_mistake_and_a_dead_worker_is_not() -> None:
    missing = SessionScript()
    missing.do("connected s1", "admitted part=7/20")
    told = missing.texts("failed 0 put-train.gz-into-/data user=yes")[-1]
    assert told.endswith("unable session=s1 run=R incarnation=1: put-train.gz-into-/data")
    dead = SessionScript()
    dead.do("connected s1", "admitted part=7/20")
    assert "load job=1 digits part=7/20" in dead.texts("failed 0 killed")
    assert "load job=2 digits part=7/20" in dead.texts("failed 1 killed")
    assert dead.texts("failed 2 killed")[-1].endswith("unable session=s1 run=R incarnation=1: killed")


def test_what_an_edge_tells_has_at_most_200_characters() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20")
    (message,) = (one for one in sent(script.do(f"failed 0 {'x' * 300} user=yes")))
    assert isinstance(message, m.Registration)
    assert message.unable == "x" * 200


def test_9_13_an_edge_that_does_not_seal_says_that_only_sealed_messages_are_taken() -> None:
    script = SessionScript()
    script.do("connected s1")
    (said,) = script.texts("aggregator online a1 retained sealed")
    assert said.startswith(
        "say error: this edge does not seal, but run R takes only sealed messages: start the edge"
    )
    assert script.do("aggregator online a1 sealed") == (), "once for each birth"
    sealing = SessionScript(identity(seals=True))
    sealing.do("connected s1")
    assert sealing.do("aggregator online a1 retained sealed") == ()


def test_4_8_both_registrations_offer_the_encodings_of_the_edge() -> None:
    script = SessionScript(identity(encodings=("f32", "q8")))
    registrations = [
        message for line in READY for message in sent(script.do(line)) if isinstance(message, m.Registration)
    ]
    assert [(one.run, one.encodings) for one in registrations] == [
        (None, ("f32", "q8")),
        ("R", ("f32", "q8")),
    ]


@pytest.mark.parametrize(
    ("admitted", "loads"), [("admitted", []), ("admitted part=8/20", ["load job=2 digits part=8/20"])]
)
@pytest.mark.parametrize(
    "steps", [("selected 1",), ("selected 1", "fetched 1")], ids=["fetching", "training"]
)
def test_4_3_work_on_another_partition_than_the_edge_has_now_ends(
    steps: tuple[str, ...], admitted: str, loads: list[str]
) -> None:
    script = ready()
    script.do(*steps)
    said = script.texts(admitted)
    assert "cancel job=1" in said
    assert [one for one in said if one.startswith("load")] == loads
    assert script.texts("fetched 1") == [], "its job has ended"
