"""What an edge keeps for a correction counts only with the update that it came with (protocol, 5.15)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fl_edge.session.work import OwnState, StateReference
from fl_shared.protocol import messages as m
from tests.support.session_script import RUN, SessionScript, update
from tests.support.session_steps import ready, sent

DIGEST = update().digest
OTHER = "e" * 64


def reference(number: int, run: str = RUN, digest: str = DIGEST) -> StateReference:
    return StateReference(run, number, digest)


def restarted(own: OwnState) -> SessionScript:
    """A new process of the edge, before it has a connection."""
    script = SessionScript()
    script.state = replace(script.session, own_state=own)
    return script


def reported(number: int = 1, own: OwnState | None = None) -> SessionScript:
    """It has sent the update of a round, and staged what the training has left."""
    script = ready()
    if own is not None:
        script.state = replace(script.session, own_state=own)
    script.do(f"selected {number}", "fetched 1", "trained 1 own")
    return script


def test_it_is_staged_before_the_update_is_saved_or_sent() -> None:
    script = ready()
    script.do("selected 1", "fetched 1")
    texts = script.texts("trained 1 own")
    assert texts[:2] == ["stage what round 1 has left", "keep the update of round 1"]
    assert texts[-1].startswith("send fl/updates/7: update")
    assert script.session.own_state == OwnState(None, reference(1))


def test_a_training_that_leaves_nothing_stages_nothing() -> None:
    script = ready()
    assert not any("stage" in text for text in script.texts("selected 1", "fetched 1", "trained 1"))


@pytest.mark.parametrize("accepted", [True, False])
def test_it_counts_if_the_update_is_in_the_version(accepted: bool) -> None:
    script = reported(2, OwnState(reference(1)))
    if accepted:
        script.do("accepted 2")
    assert "what is staged counts" in script.texts("result 2 with=7,8")
    assert script.session.own_state == OwnState(reference(2))
    assert "what is staged counts" not in script.texts("result 2 with=7,8"), (
        "the result comes again with metrics"
    )


@pytest.mark.parametrize("ended", ["result 2 with=8", "result 2 abandoned"])
def test_it_is_dropped_if_the_round_ended_without_it(ended: str) -> None:
    script = reported(2, OwnState(reference(1)))
    script.do("accepted 2")
    assert "drop what is staged" in script.texts(ended)
    assert script.session.own_state == OwnState(reference(1))


def test_another_round_or_run_says_nothing() -> None:
    script = reported(2, OwnState(reference(1)))
    script.do("result 1 with=8", "result 2 with=7 run=S", "result 3 abandoned")
    assert script.session.own_state == OwnState(reference(1), reference(2))


def test_it_is_dropped_with_a_rejected_update() -> None:
    script = reported(2, OwnState(reference(1)))
    assert "drop what is staged" in script.texts("rejected 2 late")
    assert script.session.own_state == OwnState(reference(1))


def test_a_restarted_edge_reads_the_result_before_it_is_admitted() -> None:
    script = restarted(OwnState(reference(1), reference(2)))
    assert script.texts("connected s1", "result 2 with=7") == ["what is staged counts"]
    assert script.session.own_state == OwnState(reference(2))


@pytest.mark.parametrize(
    ("answer", "left"),
    [("newest_round=2 counted=2", OwnState(reference(2))),
     ("newest_round=5 counted=2", OwnState(reference(2))),
     ("newest_round=2 counted=1", OwnState(reference(1), reference(2))),  # it is open, or has just closed
     ("newest_round=3 counted=1", OwnState(reference(1))),
     ("newest_round=1 counted=1", OwnState(reference(1))),  # the aggregator has lost round 2
     (f"newest_round=2 counted=2 digest={OTHER}", OwnState(None, reference(2))),  # another device has the id
     ("newest_round=3", OwnState()),
     ("run=S newest_round=2 counted=2", OwnState()),
     ("", OwnState(reference(1), reference(2)))],  # the run is over
)  # fmt: skip
def test_an_admission_after_a_restart_says_what_has_counted(answer: str, left: OwnState) -> None:
    script = restarted(OwnState(reference(1), reference(2)))
    script.do("connected s1", f"admitted part=7/20 {answer}")
    assert script.session.own_state == left


def test_a_late_answer_of_the_same_incarnation_says_nothing() -> None:
    script = reported(2, OwnState(reference(1)))
    script.do("result 2 with=7", "admitted part=7/20 newest_round=1 counted=1")
    assert script.session.own_state == OwnState(reference(2))


def test_a_later_incarnation_that_has_lost_the_round_is_believed() -> None:
    script = reported(2, OwnState(reference(1)))
    script.do("result 2 with=7", "admitted part=7/20 incarnation=2 newest_round=1 counted=1")
    assert script.session.own_state == OwnState(), "its next training is that of a new edge"


def test_an_edge_that_missed_how_the_round_ended_asks_before_it_trains_again() -> None:
    script = reported(2, OwnState(reference(1)))
    script.do("accepted 2")
    [asked] = sent(script.do("selected 3"))
    assert isinstance(asked, m.Registration)
    assert asked.run is None
    assert script.texts("selected 3") == [], "it waits for the answer"
    texts = script.texts("admitted part=7/20 newest_round=3 counted=2 awaited")
    assert "what is staged counts" in texts
    assert any(text.startswith("fetch job=2") for text in texts)


def test_a_registration_says_whether_there_is_anything() -> None:
    for own, fresh in ((OwnState(), True), (OwnState(reference(1)), False)):
        script = restarted(own)
        script.do("connected s1", "admitted part=7/20 newest_round=2 counted=1")
        [second] = sent(script.do("loaded 0"))
        assert isinstance(second, m.Registration)
        assert second.fresh == fresh


def test_a_version_is_evaluated_when_it_is_known_what_is_kept_with_it() -> None:
    """5.17: with the local part that belongs to the version."""
    script = reported(1)
    script.do("accepted 1")
    assert not any("fetch" in text for text in script.texts("model 1 evaluate=holdout"))
    texts = script.texts("result 1 with=7,8")
    assert texts[0] == "what is staged counts"
    assert texts[-1].startswith("fetch job=2")
