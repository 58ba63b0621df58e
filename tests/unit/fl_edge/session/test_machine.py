"""The edge's session, event by event. The numbers in the names are clauses of docs/protocol.md."""

from __future__ import annotations

import pytest

from fl_edge.session.effects import Fetch, LogNotice, Send, SendChunks, Train
from fl_edge.session.events import Trained
from fl_edge.session.machine import next_due
from fl_edge.session.state import (
    AwaitingPartition,
    Confirming,
    Loading,
    Registering,
    RegistrationComplete,
    Stopped,
)
from fl_edge.session.transitions import retry_delay
from fl_edge.session.work import (
    AwaitingGrant,
    Fetching,
    Idle,
    InlineUpload,
    Reporting,
    ReportingFailure,
    SendingChunks,
    Training,
)
from fl_shared.protocol import messages as m
from fl_shared.protocol.codec import encode
from fl_shared.transfer import upload
from tests.support.samples import DATA
from tests.support.session_script import SessionScript, identity, shown, update, version_digest

READY = ("connected s1", "admitted part=7/20", "loaded 0", "admitted part=7/20")
TRAINS = (*READY, "selected 1", "fetched 1")


def sent(effects: object) -> list[m.Message]:
    assert isinstance(effects, tuple)
    return [effect.message for effect in effects if isinstance(effect, Send)]


def ready(**changes: object) -> SessionScript:
    script = SessionScript(identity(**changes))
    script.do(*READY)
    return script


# --- section 4 --------------------------------------------------------------------------------------------


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


# --- section 5: being selected ----------------------------------------------------------------------------


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
    script.do("connected s1", "selected 3", "admitted part=7/20 received_round=3")
    assert not any(isinstance(effect, Fetch | Train) for effect in script.do("loaded 0"))
    assert any(isinstance(effect, Fetch) for effect in script.do("selected 4"))


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
    assert next_due(script.state) is not None, "of the registration"


# --- section 6: uploads -----------------------------------------------------------------------------------

BIG = DATA * 1000
"""16,000 bytes: 16 chunks of 1,000."""


def offering(*, chunk: int = 1024, limit: int = 100, connected: str = "connected s1") -> SessionScript:
    """An edge that has offered an update of 16,000 bytes."""
    script = SessionScript(identity(chunk_size=chunk))
    script.do(connected, *READY[1:], f"selected 1 limit={limit}", "fetched 1")
    script.happen(Trained(script.now, 1, update(data=BIG)))
    return script


def shipment(script: SessionScript) -> object:
    assert isinstance(script.session.work, Reporting)
    return script.session.work.upload_phase


@pytest.mark.parametrize(("limit", "kind"), [(16_000, m.Update), (15_999, m.Offer), (0, m.Offer)])
def test_6_1_an_update_over_the_inline_limit_is_offered(limit: int, kind: type[m.Message]) -> None:
    script = ready()
    script.do(f"selected 1 limit={limit}", "fetched 1")
    [message] = sent(script.happen(Trained(script.now, 1, update(data=BIG))))
    assert isinstance(message, kind)
    if isinstance(message, m.Offer):
        assert (message.size, message.chunks, message.chunk_size) == (16_000, 1, 2**20)
        assert message.digest == update(data=BIG).digest
        assert (message.examples, message.round, message.base) == (40, 1, "b" * 64)


def test_6_1_what_the_broker_does_not_take_whole_is_offered_in_chunks_that_it_takes() -> None:
    script = SessionScript()
    script.do("connected s1 largest=10000", *TRAINS[1:])
    [message] = sent(script.happen(Trained(script.now, 1, update(data=BIG))))
    assert isinstance(message, m.Offer)
    assert 8_000 < message.chunk_size < 9_500
    [send] = script.do("grant 1 0,1 digest=" + update(data=BIG).digest)
    assert isinstance(send, SendChunks)
    parts = [
        upload.chunk_message(send.sender, 0, send.update, send.chunk_size, index) for index in send.chunks
    ]
    assert all(len(encode(part)) + upload.PACKET_OVERHEAD <= 10_000 for part in parts)
    assert b"".join(bytes(part.data) for part in parts) == BIG


@pytest.mark.parametrize("largest", [0, 400, 1400, 1700])
def test_6_1_a_broker_that_takes_next_to_nothing_is_told_of(largest: int) -> None:
    script = offering(connected=f"connected s1 largest={largest}")
    assert isinstance(script.session.work, ReportingFailure)
    assert "the broker accepts packets of at most" in script.session.work.detail


def test_6_1_the_first_weights_are_offered_with_their_arrays() -> None:
    script = ready()
    script.do("selected 0 limit=0")
    [message] = sent(script.do("trained 1 base=none"))
    assert isinstance(message, m.Offer)
    assert message.base is None
    assert message.sections[0].arrays is not None


def test_6_2_an_offer_is_repeated_like_an_update_while_nobody_answers() -> None:
    script = offering()
    for _ in range(6):
        due = next_due(script.state)
        assert due is not None
        assert 5 <= due - script.now <= 30
        [message] = sent(script.do(f"time {due - script.now}"))
        assert isinstance(message, m.Offer)
        assert message.chunk_size == 1024


def test_6_3_granted_chunks_are_sent_once_in_order() -> None:
    script = offering()
    digest = update(data=BIG).digest
    assert script.texts(f"grant 1 3,1,2,3,1 digest={digest}") == [
        "send chunks 3,1,2 of 1024 bytes session=s1 round=1"
    ]
    assert shipment(script) == SendingChunks(1024)
    assert script.texts(f"grant 1 3 digest={digest}") == ["send chunks 3 of 1024 bytes session=s1 round=1"]


def test_6_3_chunks_that_there_are_not_are_not_sent() -> None:
    script = offering()
    digest = update(data=BIG).digest
    assert script.do(f"grant 1 16,17 digest={digest}") == ()
    assert script.texts(f"grant 1 15,99 digest={digest}") == [
        "send chunks 15 of 1024 bytes session=s1 round=1"
    ]


@pytest.mark.parametrize(
    "grant",
    ["1 0 digest=" + "0" * 64, "2 0", "0 0", "1 0 run=ghost", "1 0 incarnation=2", "1 0 session=s0"],
)
def test_6_3_what_was_not_granted_for_this_is_not_sent(grant: str) -> None:
    script = offering()
    more = "" if "digest" in grant else f" digest={update(data=BIG).digest}"
    assert script.do(f"grant {grant}{more}") == ()
    assert shipment(script) == AwaitingGrant(1024)


def test_6_3_a_grant_for_what_was_sent_whole_means_nothing() -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1")
    assert shipment(script) == InlineUpload()
    assert script.do("grant 1 0") == ()


def test_6_3_the_numbers_of_chunks_and_of_other_messages_grow_together() -> None:
    script = offering()
    digest = update(data=BIG).digest
    [send] = script.do(f"grant 1 0,1,2 digest={digest}")
    assert isinstance(send, SendChunks)
    assert script.session.seq == send.first_seq + 3
    [again] = script.do(f"grant 1 0 digest={digest}")
    assert isinstance(again, SendChunks)
    assert again.first_seq == send.first_seq + 3


def test_6_4_while_grants_come_the_offer_is_not_repeated() -> None:
    script = offering()
    digest = update(data=BIG).digest
    for index in range(15):
        assert len(script.do(f"grant 1 {index} digest={digest}")) == 1
        assert script.do("time 9.9") == ()
    waits = []
    for _ in range(5):
        due = next_due(script.state)
        assert due is not None
        waits.append(due - script.now)
        [message] = sent(script.do(f"time {waits[-1]}"))
        assert isinstance(message, m.Offer)
    assert waits[0] + 9.9 >= 10
    assert all(10 <= wait <= 30 for wait in waits[1:])


@pytest.mark.parametrize("again", ["connected s2", "aggregator online a2 incarnation=2"])
def test_6_4_after_a_reconnect_and_in_a_new_incarnation_it_is_offered_again_cut_the_same_way(
    again: str,
) -> None:
    script = offering()
    script.do("aggregator online a1 retained", f"grant 1 0,1 digest={update(data=BIG).digest}")
    incarnation = 2 if "incarnation=2" in again else 1
    script.do(*(["lost"] if "connected" in again else []), again)
    # The new registration is not answered yet.
    assert script.do(f"grant 1 2 incarnation={incarnation} digest={update(data=BIG).digest}") == ()
    messages = sent(script.do(f"admitted part=7/20 incarnation={incarnation}"))
    [message] = [message for message in messages if isinstance(message, m.Offer)]
    assert (message.chunk_size, message.incarnation) == (1024, incarnation)
    [send] = script.do(f"grant 1 2 incarnation={incarnation} digest={update(data=BIG).digest}")
    assert isinstance(send, SendChunks)
    assert (send.sender.session, send.sender.incarnation) == (message.session, incarnation)


def test_6_4_a_broker_that_takes_less_than_before_gets_smaller_chunks() -> None:
    script = offering(chunk=8192)
    script.do("lost", "connected s2 largest=5000")
    [message] = [x for x in sent(script.do("admitted part=7/20")) if isinstance(x, m.Offer)]
    assert 3_000 < message.chunk_size < 4_500


@pytest.mark.parametrize("answer", ["accepted 1", "rejected 1 wrong-digest"])
def test_6_5_accepted_and_rejected_end_an_upload(answer: str) -> None:
    script = offering()
    digest = update(data=BIG).digest
    script.do(f"grant 1 0,1 digest={digest}")
    script.do(f"{answer} digest={digest}")
    assert isinstance(script.session.work, Idle)
    assert script.do(f"grant 1 2 digest={digest}") == ()


def test_6_2_an_offer_may_be_answered_with_accepted_at_once() -> None:
    script = offering()
    script.do(f"accepted 1 digest={update(data=BIG).digest}")
    assert isinstance(script.session.work, Idle)


# --- section 5: reporting ---------------------------------------------------------------------------------


def test_5_5_an_update_is_repeated_after_pauses_of_5_to_30_seconds() -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1")
    for attempt in range(6):
        due = next_due(script.state)
        assert due is not None
        wait = due - script.now
        assert 5 <= wait <= 30
        assert attempt == 0 or wait >= 10
        assert script.texts(f"time {wait - 0.01}") == []
        [message] = sent(script.do("time 0.02"))
        assert isinstance(message, m.Update)


def test_5_5_an_update_is_kept_offline_and_sent_again_under_the_new_envelope() -> None:
    script = SessionScript()
    script.do(*TRAINS, "lost")
    assert sent(script.do("trained 1")) == []
    assert next_due(script.state) is None
    script.do("connected s2")
    messages = sent(script.do("admitted part=7/20 incarnation=2"))
    [kept] = [message for message in messages if isinstance(message, m.Update)]
    assert (kept.session, kept.incarnation, kept.digest) == ("s2", 2, update().digest)
    assert sent(script.do("admitted part=7/20 incarnation=2")) == [], "once is enough on one connection"


def test_5_5_a_reconnect_finds_the_update_held() -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1", "lost", "connected s2", "admitted part=7/20 received_round=1")
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
    assert next_due(script.state) is None
    assert script.do("time 100") == ()
    script.do("aggregator online a2 incarnation=2")
    assert any(
        isinstance(message, m.Update) for message in sent(script.do("admitted part=7/20 incarnation=2"))
    )


def test_another_run_begins_at_its_own_round_1() -> None:
    script = SessionScript()
    script.do(*TRAINS, "trained 1", "accepted 1", "selected 1 run=other", "aggregator online a2 run=other")
    assert "say selected for round 1" in script.texts("admitted part=7/20 run=other")


def test_pauses_differ_between_edges_and_repeat_for_one() -> None:
    pauses = {retry_delay(str(client), 3, 1.0) for client in range(100)}
    assert len(pauses) == 100
    assert retry_delay("7", 3, 1.0) == retry_delay("7", 3, 1.0)


# --- 4.8 and 5.12 -----------------------------------------------------------------------------------------


def test_4_8_both_registrations_offer_the_encodings_of_the_edge() -> None:
    script = SessionScript(identity(encodings=("f32", "q8")))
    registrations = [
        message for line in READY for message in sent(script.do(line)) if isinstance(message, m.Registration)
    ]
    assert [(one.run, one.encodings) for one in registrations] == [
        (None, ("f32", "q8")),
        ("R", ("f32", "q8")),
    ]


def test_5_12_an_edge_that_does_not_know_the_encoding_of_the_round_says_so() -> None:
    script = ready()
    [failed] = sent(script.do("selected 1 encoding=q8"))
    assert isinstance(failed, m.TrainingFailed)
    assert (failed.round, failed.detail) == (
        1,
        "encoding: 'q8' in the selection, but this edge can send updates in 'f32'",
    )
    assert [type(effect) for effect in script.do("selected 2")] == [LogNotice, LogNotice, Fetch]


# --- 5.11 and predictions ---------------------------------------------------------------------------------


def test_5_11_an_evaluate_edge_reports_each_version_once() -> None:
    script = SessionScript(identity(roles=("evaluate",)))
    script.do("connected s1", "admitted")
    assert script.texts("model 1 evaluate=test") == [f"fetch job=0 {version_digest(1)[:12]} within 600 s"]
    assert script.texts("fetched 0") == [f"evaluate job=0 {version_digest(1)[:12]} on test"]
    assert script.texts("evaluated 0")[-1] == (
        "send fl/evaluations/7: evaluation incarnation=1 version=1 test accuracy=0.75"
    )
    assert script.do("model 1 evaluate=test") == ()
    assert script.do("model 2") == (), "nobody asks"


def test_5_11_only_the_newest_of_those_that_came_meanwhile_is_evaluated() -> None:
    script = SessionScript(identity(roles=("evaluate",)))
    script.do("connected s1", "admitted", "model 1 evaluate=test", "fetched 0")
    assert script.do("model 2 evaluate=test", "model 3 evaluate=test") == ()
    assert script.texts("evaluated 0")[-1] == f"fetch job=1 {version_digest(3)[:12]} within 600 s"


def test_5_11_what_was_found_is_said_again_in_a_new_session_without_doing_it_again() -> None:
    script = SessionScript(identity(roles=("evaluate",)))
    script.do("connected s1", "admitted", "model 1 evaluate=test", "fetched 0", "evaluated 0", "lost")
    script.do("connected s2")
    assert len(sent(script.do("admitted"))) == 1
    assert script.do("model 1 evaluate=test") == ()


def evaluations(effects: object) -> list[m.Evaluation]:
    return [message for message in sent(effects) if isinstance(message, m.Evaluation)]


def test_5_11_holdouts_are_for_edges_that_train_and_have_one() -> None:
    script = ready()
    assert script.texts("model 1 evaluate=test")[-1] == "offer version 1"
    assert script.texts("model 1 evaluate=holdout")[-1].startswith("fetch job=1")
    without = SessionScript()
    without.do("connected s1", "admitted part=7/20", "loaded 0 holdout=0")
    effects = without.do("model 1 evaluate=holdout")
    assert not any(isinstance(effect, Fetch) for effect in effects)
    assert [(report.version, report.examples) for report in evaluations(effects)] == [(1, 0)], (
        "not waited for"
    )
    assert sent(without.do("model 1 evaluate=holdout")) == [], "once"
    assert sent(without.do("model 2 evaluate=test")) == []


def test_an_evaluation_that_fails_is_not_tried_for_ever() -> None:
    script = SessionScript(identity(roles=("evaluate",)))
    script.do("connected s1", "admitted", "model 1 evaluate=test")
    assert [report.examples for report in evaluations(script.do("failed 0 it was superseded"))] == [0]
    assert script.do("model 1 evaluate=test") == ()
    assert isinstance(script.do("model 2 evaluate=test")[-1], Fetch)


def test_models_are_offered_for_predictions_before_any_admission_but_not_those_of_ghosts_after_it() -> None:
    script = SessionScript()
    script.do("connected s1")
    assert script.texts("model 4 run=old") == ["offer version 4"]
    script.do("admitted part=7/20")
    assert script.do("model 5 run=old") == ()
    assert script.texts("model 1") == ["offer version 1"]
    assert SessionScript(identity(roles=("train",))).do("model 1") == ()


# --- the end ----------------------------------------------------------------------------------------------


def test_stopping_cancels_says_goodbye_and_disconnects() -> None:
    script = SessionScript()
    script.do(*TRAINS)
    assert script.texts("stop") == [
        "cancel job=1",
        "send fl/clients/7/presence (retained): offline session=s1",
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
    assert len(numbers) == 5


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
