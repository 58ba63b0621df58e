"""An update that is too large to be sent whole is offered, and sent in granted chunks (protocol, section 6)."""

from __future__ import annotations

import pytest

from fl_edge.session import machine
from fl_edge.session.effects import SendChunks
from fl_edge.session.events import Trained
from fl_edge.session.work import (
    AwaitingGrant,
    Idle,
    InlineUpload,
    Reporting,
    ReportingFailure,
    SendingChunks,
)
from fl_shared.protocol import messages as m
from fl_shared.protocol.codec import encode
from fl_shared.transfer import upload
from tests.support.samples import DATA
from tests.support.session_script import SessionScript, identity, update
from tests.support.session_steps import READY, TRAINS, ready, sent

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
        due = machine.due(script.state)
        assert due is not None
        assert 5 <= due - script.now <= 30
        _, message = sent(script.do(f"time {due - script.now}"))
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
        due = machine.due(script.state)
        assert due is not None
        waits.append(due - script.now)
        _, message = sent(script.do(f"time {waits[-1]}"))
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
