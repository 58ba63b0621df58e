"""Saying what came of a round's work, until the aggregator has answered it (protocol, 5.5)."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from fl_edge.session.effects import Say, Send
from fl_edge.session.phases import (
    Fetching,
    Idle,
    Reporting,
    Session,
    Told,
    TrainedUpdate,
    Training,
    Unable,
)
from fl_edge.session.steps import Step, drop_work, numbered, pause, stay, then
from fl_shared import messages as m
from fl_shared import topics as t
from fl_shared.codec import encode

UPDATE_PAUSE = 5.0
"""Seconds before an update is sent again (5.5)."""
PACKET_ROOM = 512
"""Bytes of an MQTT packet that are not its payload: topic and properties, generously."""
MAX_DETAIL = 1000


def give_up(session: Session, selected: m.Selected, detail: str, now: float) -> Step:
    """Says that it cannot train in this round."""
    said = Say(f"round {selected.round}: cannot train: {detail}", "warning")
    session = replace(session, work=Unable(selected, detail[:MAX_DETAIL], None, 0, now))
    return then(stay(session, said), lambda s: report(s, now))


def report(session: Session, now: float) -> Step:
    """Sends what is to be reported, unless this connection has told it to this start of the aggregator."""
    match session.work:
        case Reporting(told=told) | Unable(told=told) if told != session.admitted_as():
            return _send(session, now, 0)
        case _:
            return stay(session)


def repeat(session: Session, now: float) -> Step:
    """Sends it again when that is due. To an aggregator that has said that it is gone, it is of no use."""
    gone = session.aggregator is not None and session.aggregator.state == "offline"
    match session.work:
        case Reporting(attempt=attempt, due=due) | Unable(attempt=attempt, due=due) if (
            now >= due and not gone
        ):
            return _send(session, now, attempt + 1)
        case _:
            return stay(session)


def _send(session: Session, now: float, attempt: int) -> Step:
    told, line, work = session.admitted_as(), session.line, session.work
    if told is None or line is None:
        return stay(session)
    client = session.identity.client
    due = now + pause(client, attempt, UPDATE_PAUSE)
    session, seq = numbered(session)
    match work:
        case Reporting(selected=selected, update=update):
            message = update_message(client, told, seq, selected.round, update)
            size = message_bytes(message)
            limit, whose = selected.inline_limit, "that the aggregator takes in one message"
            if line.largest is not None and line.largest - PACKET_ROOM < limit:
                limit, whose = line.largest - PACKET_ROOM, "that the broker lets through"
            if size > limit:
                detail = f"its update has {size} bytes, more than the {limit} {whose}"
                return give_up(session, selected, detail, now)
            session = replace(session, work=replace(work, told=told, attempt=attempt, due=due))
            return stay(session, Send(t.UpdatesTopic(client), message))
        case Unable(selected=selected, detail=detail):
            failed = m.TrainingFailed(
                run=told.run,
                epoch=told.epoch,
                seq=seq,
                client=client,
                session=told.session,
                round=selected.round,
                detail=detail,
            )
            session = replace(session, work=replace(work, told=told, attempt=attempt, due=due))
            return stay(session, Send(t.UpdatesTopic(client), failed))
        case Idle() | Fetching() | Training():
            return stay(session)
        case _:
            assert_never(work)


def update_message(client: str, told: Told, seq: int, number: int, update: TrainedUpdate) -> m.Update:
    return m.Update(
        run=told.run,
        epoch=told.epoch,
        seq=seq,
        client=client,
        session=told.session,
        round=number,
        base=update.base,
        digest=update.digest,
        examples=update.examples,
        steps=update.steps,
        seconds=update.seconds,
        metrics=update.metrics,
        sections=update.sections,
    )


def message_bytes(update: m.Update) -> int:
    """How long the encoded message is, without encoding the tensors (msgpack's bin 8, 16 and 32)."""
    bare = update.model_copy(
        update={"sections": tuple(s.model_copy(update={"data": b""}) for s in update.sections)}
    )
    lengths = [len(section.data) for section in update.sections]
    return len(encode(bare)) + sum(n + (0 if n < 2**8 else 1 if n < 2**16 else 3) for n in lengths)


# --- the answer -------------------------------------------------------------------------------------------


def accepted(session: Session, reply: m.Accepted) -> Step:
    match session.work:
        case Reporting(selected=selected, update=update) if _meant(session, reply, selected, update.digest):
            said = Say(f"round {reply.round}: accepted")
            session = replace(session, settled=max(session.settled, reply.round))
            return then(drop_work(session), lambda s: stay(s, said))
        case _:
            return stay(session)


def rejected(session: Session, reply: m.Rejected) -> Step:
    match session.work:
        case Reporting(selected=selected, update=update) if _meant(session, reply, selected, update.digest):
            pass
        case Unable(selected=selected) if _meant(session, reply, selected, None):
            pass
        case _:
            return stay(session)
    said = Say(f"round {reply.round}: rejected: {reply.reason}: {reply.detail}", "warning")
    session = replace(session, settled=max(session.settled, reply.round))
    return then(drop_work(session), lambda s: stay(s, said))


def _meant(
    session: Session, reply: m.Accepted | m.Rejected, selected: m.Selected, digest: str | None
) -> bool:
    return (
        session.member is not None
        and reply.run == session.member.run
        and reply.round == selected.round
        and reply.digest in (None, digest)
    )
