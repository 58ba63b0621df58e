"""A member of a masked round answers what it is asked until the aggregator has the answer (protocol, section 10)."""

from __future__ import annotations

import hashlib

import pytest

from fl_edge.session import machine
from fl_edge.session.effects import LogNotice, MakeRunKeys, WorkOutAnswer
from fl_edge.session.policy import RequiredMasking
from fl_edge.session.state import RegistrationComplete, Stopped
from fl_edge.session.work import Answering, Calm, ReportingFailure
from fl_shared.protocol import messages as m
from tests.support.session_script import KEYS, SessionScript, identity
from tests.support.session_steps import sent

MASKED = ("connected s1", "admitted part=7/20 masked", "loaded 0", "keys", "admitted part=7/20 masked")
MEMBER = (*MASKED, "selected 1 cohort=7,8,9 masked")
DIGEST = hashlib.sha256(b"o" * 16).hexdigest()


def member(*more: str, **changes: object) -> SessionScript:
    script = SessionScript(identity(**changes))
    script.do(*MEMBER, *more)
    return script


# --- registration -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("loaded 0", "keys"), ("keys", "loaded 0")])
def test_10_1_an_edge_registers_with_its_keys_and_says_only_that_it_has_examples(
    order: tuple[str, ...],
) -> None:
    script = SessionScript()
    done = script.do("connected s1", "admitted part=7/20 masked")
    assert MakeRunKeys("R") in done
    assert sent(script.do(order[0])) == []
    [second] = sent(script.do(order[1]))
    assert isinstance(second, m.Registration)
    assert (second.keys, second.examples) == (KEYS, 1)
    script.do("admitted part=7/20 masked")
    assert isinstance(script.session.registration, RegistrationComplete)


def test_10_1_keys_are_made_once_for_a_run() -> None:
    script = member("lost", "connected s2")
    assert not any(
        isinstance(effect, MakeRunKeys) for effect in script.do("admitted part=7/20 masked incarnation=2")
    )


def test_10_1_another_run_needs_other_keys() -> None:
    script = member("aggregator online a2 run=S")
    assert MakeRunKeys("S") in script.do("admitted part=7/20 run=S masked")
    script.do("keys run=R", f"loaded {script.session.job - 1}")
    assert script.session.masked_run is None, "these are of the run before"
    [second] = sent(script.do("keys run=S"))
    assert isinstance(second, m.Registration)
    assert (second.run, second.keys) == ("S", KEYS)


def test_a_run_without_masks_asks_for_no_keys() -> None:
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20")
    [second] = sent(script.do("loaded 0"))
    assert isinstance(second, m.Registration)
    assert (second.keys, second.examples) == (None, 40)


def test_10_1_an_edge_whose_keys_are_refused_ends() -> None:
    script = SessionScript()
    script.do(*MASKED, "refused bad-run-keys")
    assert isinstance(script.state, Stopped)
    assert script.state.exit_code == 2
    script = SessionScript()
    script.do(*MASKED, "refused no-run-keys")
    assert machine.due(script.state) is None, "it waits for another run"


# --- answers ----------------------------------------------------------------------------------------------


def test_10_8_a_signature_is_repeated_until_the_reveal() -> None:
    script = member("closing 1 of=7,8 left=600")
    for attempt in range(5):
        messages = sent(script.do("signed") if attempt == 0 else script.do("time 0.02"))
        assert [type(one) for one in messages if not isinstance(one, m.Delayed)] == [m.Agreed]
        due = machine.due(script.state)
        assert due is not None
        assert 5 <= due - script.now <= 30
        assert script.texts(f"time {due - script.now - 0.01}") == []
    assert script.texts("reveal 1 of=7,8") == ["open round=1 included=7,8 values=4"]
    assert sent(script.do("time 31")) == [], "it has not worked out what it opens"


def test_10_10_shares_are_repeated_until_they_are_accepted() -> None:
    script = member("reveal 1 of=7,8")
    [opened] = sent(script.do("opened"))
    assert isinstance(opened, m.Opened)
    assert (opened.round, opened.digest, opened.session) == (1, DIGEST, "s1")
    assert [type(one) for one in sent(script.do("time 11"))] == [m.Opened]
    script.do("accepted 1 digest=" + "0" * 64)
    assert script.session.unmasking != Calm(), "that was for something else"
    script.do(f"accepted 1 digest={DIGEST}")
    assert script.session.unmasking == Calm()


@pytest.mark.parametrize("end", ["result 1", "result 2", "unmask cleared", "selected 2 cohort=8,9 masked"])
def test_10_8_the_end_of_the_round_ends_it(end: str) -> None:
    script = member("closing 1 of=7,8", "signed")
    script.do(end)
    assert script.session.unmasking == Calm()


def test_an_earlier_end_does_not_end_it() -> None:
    script = SessionScript()
    script.do(*MASKED, "selected 3 cohort=7,8,9 masked", "closing 3 of=7,8", "signed", "result 2")
    assert isinstance(script.session.unmasking, Answering)


def test_nothing_is_repeated_for_ever() -> None:
    script = member("closing 1 of=7,8 left=20", "signed")
    script.do("time 15")
    [notice] = script.do("time 5")
    assert isinstance(notice, LogNotice)
    assert "did not say in time what has become of this edge's signature" in notice.text
    assert script.session.unmasking == Calm()
    assert any(isinstance(one, WorkOutAnswer) for one in script.do("closing 1 of=7,8 incarnation=1"))


def test_what_is_asked_before_all_is_there_is_answered_then() -> None:
    for order in (
        ("closing 1 of=7,8", *MEMBER[1:]),
        ("selected 1 cohort=7,8,9 masked", "closing 1 of=7,8", *MASKED[1:]),
        (*MASKED[1:3], "selected 1 cohort=7,8,9 masked", "closing 1 of=7,8", "keys"),
    ):
        script = SessionScript()
        script.do("connected s1")
        done = [effect for line in order for effect in script.do(line)]
        assert sum(isinstance(effect, WorkOutAnswer) for effect in done) == 1, order


def test_an_edge_asked_by_a_resumed_aggregator_sends_the_same_answer_again() -> None:
    script = member("closing 1 of=7,8", "signed", "aggregator online a2 incarnation=2")
    script.do("closing 1 of=7,8 incarnation=2 left=90")
    messages = sent(script.do("admitted part=7/20 masked incarnation=2"))
    assert [(one.incarnation, one.closing) for one in messages if isinstance(one, m.Agreed)] == [
        (2, "e" * 64)
    ]


def test_another_set_of_the_round_is_worked_out_anew() -> None:
    script = member("closing 1 of=7,8", "signed")
    assert script.texts("closing 1 of=7,9") == ["sign round=1 included=7,9 values=4"]
    [declined] = sent(script.do("declined another-set"))
    assert isinstance(declined, m.Declined)
    assert (declined.reason, declined.round) == ("another-set", 1)


def test_a_late_closing_does_not_undo_a_reveal() -> None:
    script = member("reveal 1 of=7,8", "opened")
    assert script.texts("closing 1 of=7,8") == []
    assert script.texts("closing 1 of=7,8 run=S") == []


def test_it_answers_while_it_trains_and_when_it_has_failed() -> None:
    script = member("fetched 1", "closing 1 of=8,9")
    assert [type(one) for one in sent(script.do("signed"))] == [m.Agreed]
    script = member("failed 1 no memory", "closing 1 of=8,9")
    assert isinstance(script.session.work, ReportingFailure)
    assert [type(one) for one in sent(script.do("signed"))] == [m.Agreed]


def test_what_it_has_signed_while_offline_is_sent_when_it_is_back() -> None:
    script = member("closing 1 of=7,8 left=600", "lost")
    assert sent(script.do("signed")) == []
    script.do("connected s2")
    messages = sent(script.do("admitted part=7/20 masked"))
    assert [one.session for one in messages if isinstance(one, m.Agreed)] == ["s2"]


# --- what does not leave the edge -------------------------------------------------------------------------


def test_10_11_no_numbers_of_the_edge_leave_it() -> None:
    """P8 in docs/privacy.md."""
    script = SessionScript()
    script.do(*MASKED, "selected 0")
    [first] = sent(script.do("trained 1 base=none"))
    assert isinstance(first, m.Update)
    assert first.examples == 1
    script.do("accepted 0", "model 0")
    [evaluation] = sent(script.do("model 1 evaluate=holdout"))
    assert isinstance(evaluation, m.Evaluation)
    assert (evaluation.examples, evaluation.metrics) == (0, {})


def test_a_masked_run_has_no_plain_rounds_and_another_run_no_masked_ones() -> None:
    script = SessionScript()
    script.do(*MASKED)
    [failed] = sent(script.do("selected 1 cohort=7,8,9"))
    assert isinstance(failed, m.TrainingFailed)
    assert failed.detail == "the updates of this run are masked, but not those of this round"
    script = SessionScript()
    script.do("connected s1", "admitted part=7/20", "loaded 0", "admitted part=7/20")
    [failed] = sent(script.do("selected 1 cohort=7,8,9 masked"))
    assert isinstance(failed, m.TrainingFailed)
    assert failed.detail == "the round is masked, but this edge has no keys of the run"


# --- what the aggregator is told of a failure -------------------------------------------------------------

SECRET = "train.csv: row 2, column 'name': 'Mueller' is no number"
TOLD = "loading or training failed; the edge's log has the reason"


@pytest.mark.parametrize(("masked", "required"), [(True, False), (False, True), (False, False)])
def test_p8_a_failure_quotes_the_data_in_the_log_alone(masked: bool, required: bool) -> None:
    """P8, in a masked run, and in any run of an edge that requires masks."""
    script = SessionScript(
        identity(requires=RequiredMasking(5, 1), task="digits") if required else identity()
    )
    told = TOLD if masked or required else SECRET
    script.do("connected s1", "admitted part=7/20" + " masked" * masked)
    said, unable = script.texts(f"failed 0 {SECRET} user=yes fault=either")
    assert SECRET in said
    assert unable.endswith(f"incarnation=1: {told}")
    assert script.texts("time 60")[0].endswith(f"incarnation=1: {told}"), "it is repeated"


@pytest.mark.parametrize("masked", [True, False])
def test_p8_a_failed_training_quotes_the_data_in_the_log_alone(masked: bool) -> None:
    script = SessionScript()
    said = " masked" * masked
    script.do("connected s1", f"admitted part=7/20{said}", "loaded 0", "keys", f"admitted part=7/20{said}")
    script.do(f"selected 1 cohort=7,8,9{said}", "fetched 1")
    done = script.do(f"failed 1 {SECRET}")
    [failed] = sent(done)
    assert isinstance(failed, m.TrainingFailed)
    assert failed.detail == (TOLD if masked else SECRET)
    assert any(isinstance(effect, LogNotice) and SECRET in effect.text for effect in done)
