"""Saying what came of a round's work, until the aggregator has answered it (protocol, 5.5 and section 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from fl_edge.session.effects import LogNotice, Send, SendChunks
from fl_edge.session.state import (
    Fetching,
    Granted,
    Idle,
    LastAnswer,
    Offered,
    Reporting,
    Session,
    Shipment,
    Training,
    TrainingFailed,
    Whole,
)
from fl_edge.session.transitions import Step, drop_work, numbered, pause, stay, then
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.transfer import upload
from fl_shared.transfer.publication import chunk_count
from fl_shared.transfer.upload import Sender

UPDATE_PAUSE = 5.0
"""Seconds before an update is sent again (5.5)."""
GRANT_PAUSE = 10.0
"""Seconds after a grant in which another one, or an answer, is waited for before the offer is repeated."""
MAX_DETAIL = 1000


def give_up(session: Session, selected: m.Selected, detail: str, now: float) -> Step:
    """Says that it cannot train in this round."""
    said = LogNotice(f"round {selected.round}: cannot train: {detail}", "warning")
    session = replace(session, work=TrainingFailed(selected, detail[:MAX_DETAIL], None, 0, now))
    return then(stay(session, said), lambda s: report(s, now))


def report(session: Session, now: float) -> Step:
    """Sends what is to be reported, unless this connection has told it to this start of the aggregator."""
    match session.work:
        case Reporting(told=told) | TrainingFailed(told=told) if told != session.admitted_as():
            return _send(session, now, 0)
        case _:
            return stay(session)


def repeat(session: Session, now: float) -> Step:
    """Sends it again when that is due. To an aggregator that has said that it is gone, it is of no use."""
    gone = session.aggregator is not None and session.aggregator.state == "offline"
    match session.work:
        case Reporting(attempt=attempt, due=due) | TrainingFailed(attempt=attempt, due=due) if (
            now >= due and not gone
        ):
            return _send(session, now, attempt + 1)
        case _:
            return stay(session)


def _send(session: Session, now: float, attempt: int) -> Step:
    told, work = session.admitted_as(), session.work
    if told is None:
        return stay(session)
    match work:
        case Reporting():
            return _ship(session, work, told, now, attempt)
        case TrainingFailed(selected=selected, detail=detail):
            session, seq = numbered(session)
            failed = m.TrainingFailed(
                run=told.run,
                epoch=told.epoch,
                seq=seq,
                client=session.identity.client,
                session=told.session,
                round=selected.round,
                detail=detail,
            )
            due = now + pause(session.identity.client, attempt, UPDATE_PAUSE)
            session = replace(session, work=replace(work, told=told, attempt=attempt, due=due))
            return stay(session, Send(t.UpdatesTopic(session.identity.client), failed))
        case Idle() | Fetching() | Training():
            return stay(session)
        case _:
            assert_never(work)


def _ship(session: Session, work: Reporting, told: LastAnswer, now: float, attempt: int) -> Step:
    """Sends the update whole where that may be (6.1), and else offers it."""
    who, line, update = session.identity, session.line, work.update
    assert line is not None
    session, seq = numbered(session)
    sender = _sender(session, told, work)
    message: m.Update | m.Offer
    shipment: Shipment
    if update.size <= work.selected.inline_limit and (
        line.largest is None or upload.whole_bytes(sender, seq, update) + upload.PACKET_ROOM <= line.largest
    ):
        message, shipment = upload.whole(sender, seq, update), Whole()
    else:
        # Cut as it was before, if that still fits: what has arrived of it is of use then.
        wanted = who.chunk if isinstance(work.shipment, Whole) else work.shipment.chunk_size
        try:
            chunk_size = upload.chunk_size_for(sender, update, wanted, line.largest)
        except ValueError as error:
            return give_up(session, work.selected, str(error), now)
        message, shipment = upload.offer(sender, seq, update, chunk_size), Offered(chunk_size)
    due = now + pause(who.client, attempt, UPDATE_PAUSE)
    work = replace(work, told=told, attempt=attempt, due=due, shipment=shipment)
    return stay(replace(session, work=work), Send(t.UpdatesTopic(who.client), message))


def _sender(session: Session, told: LastAnswer, work: Reporting) -> Sender:
    return Sender(session.identity.client, told.session, told.run, told.epoch, work.selected.round)


# --- chunks -----------------------------------------------------------------------------------------------


def granted(session: Session, reply: m.Grant, now: float) -> Step:
    """Sends what is asked for (6.3), once for each time that it is."""
    match session.work:
        case (
            Reporting(
                selected=selected,
                update=update,
                told=LastAnswer() as told,
                shipment=Offered() | Granted() as shipment,
            ) as work
        ) if told == session.admitted_as() and reply.epoch == told.epoch:
            chunks = upload.granted(reply.chunks, chunk_count(update.size, shipment.chunk_size))
            if not chunks or not _meant(session, reply, selected, update.digest):
                return stay(session)
        case _:
            return stay(session)
    send = SendChunks(_sender(session, told, work), update, shipment.chunk_size, chunks, session.seq)
    due = now + pause(session.identity.client, 0, GRANT_PAUSE)
    work = replace(work, attempt=0, due=due, shipment=Granted(shipment.chunk_size))
    return stay(replace(session, work=work, seq=session.seq + len(chunks)), send)


# --- the answer -------------------------------------------------------------------------------------------


def accepted(session: Session, reply: m.Accepted) -> Step:
    match session.work:
        case Reporting(selected=selected, update=update) if _meant(session, reply, selected, update.digest):
            said = LogNotice(f"round {reply.round}: accepted")
            session = replace(session, settled=max(session.settled, reply.round))
            return then(drop_work(session), lambda s: stay(s, said))
        case _:
            return stay(session)


def rejected(session: Session, reply: m.Rejected) -> Step:
    match session.work:
        case Reporting(selected=selected, update=update) if _meant(session, reply, selected, update.digest):
            pass
        case TrainingFailed(selected=selected) if _meant(session, reply, selected, None):
            pass
        case _:
            return stay(session)
    said = LogNotice(f"round {reply.round}: rejected: {reply.reason}: {reply.detail}", "warning")
    session = replace(session, settled=max(session.settled, reply.round))
    return then(drop_work(session), lambda s: stay(s, said))


def _meant(
    session: Session, reply: m.Grant | m.Accepted | m.Rejected, selected: m.Selected, digest: str | None
) -> bool:
    return (
        session.member is not None
        and reply.run == session.member.run
        and reply.round == selected.round
        and reply.digest == digest
    )
