"""An edge of an asynchronous run: a ticket ends only by its own topic, an answer, or another run (protocol, 5.19)."""

from __future__ import annotations

import pytest

from fl_edge.session.work import Fetching, Idle, Reporting, Training
from fl_shared.protocol import messages as m
from tests.support.session_script import SessionScript, version_digest
from tests.support.session_steps import ready, sent

TICKET = "selected 3 work ticket"


def training() -> SessionScript:
    script = ready()
    script.do(TICKET)
    script.do("fetched 1")
    assert isinstance(script.session.work, Training)
    return script


@pytest.mark.parametrize(
    "ended", ["result 3 committed by=8", "result 5 committed by=8", "cleared 3", "model 3"]
)
def test_the_end_of_a_round_does_not_stop_a_ticket(ended: str) -> None:
    script = training()
    script.do(ended)
    assert isinstance(script.session.work, Training)


def test_its_own_topic_stops_a_ticket() -> None:
    script = training()
    assert "cancel job=1" in script.texts("cleared work")
    assert isinstance(script.session.work, Idle)


def test_a_later_ticket_takes_the_place_of_an_earlier_one() -> None:
    script = training()
    script.do("selected 5 work ticket")
    assert isinstance(script.session.work, Fetching)
    assert script.session.work.selected.round == 5


def test_a_finished_update_waits_for_its_answer_and_is_not_trained_again() -> None:
    script = training()
    [message] = sent(script.do("trained 1"))
    assert isinstance(message, m.Update)
    script.do("result 4 committed by=8")
    script.do("cleared work")
    assert isinstance(script.session.work, Reporting)
    script.do("accepted 3")
    assert isinstance(script.session.work, Idle)
    assert script.do(TICKET) == (), "it was answered"
    assert script.texts("selected 4 work ticket")[0] == "say selected for round 4", (
        "a result of round 4 says nothing"
    )


def test_a_restarted_edge_takes_its_ticket_up_though_later_rounds_have_ended() -> None:
    script = ready()
    script.do("result 7 committed by=8")
    assert script.texts(TICKET)[0] == "say selected for round 3"


def test_it_trains_from_the_newest_version() -> None:
    script = ready()
    script.do("model 6")
    assert script.texts(TICKET)[1] == f"fetch job=1 {version_digest(6)[:12]} within 600 s"
    script.do("fetched 1")
    assert script.session.work.selected.base == m.ModelReference(version=6, digest=version_digest(6))  # type: ignore[union-attr]


def test_a_base_that_is_no_longer_retained_is_replaced_by_the_newest_version() -> None:
    script = ready()
    script.do(TICKET)
    assert not [text for text in script.texts("model 3") if "fetch" in text], "version 2 is retained still"
    assert script.texts("failed 1 gone")[-1] == f"fetch job=2 {version_digest(3)[:12]} within 600 s"
    assert script.texts("model 5")[-2] == f"fetch job=3 {version_digest(5)[:12]} within 600 s"


def test_an_aggregator_that_has_lost_the_answer_may_ask_again() -> None:
    script = training()
    script.do("trained 1")
    script.do("accepted 3")
    script.do("admitted part=7/20 incarnation=2 newest_round=3 awaited")
    assert script.texts(f"{TICKET} incarnation=2")[0] == "say selected for round 3"
