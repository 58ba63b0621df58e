"""Reports the outcome of a round's work until the aggregator has answered (protocol, 5.5 and section 6)."""

from __future__ import annotations

from typing import Literal, assert_never

from fl_edge.session import own_state
from fl_edge.session.effects import LogNotice, Send, SendChunks
from fl_edge.session.policy import MASKED_ONLY
from fl_edge.session.state import Session
from fl_edge.session.transitions import Transition, cancel_work, retry_delay, then, transition, with_next_seq
from fl_edge.session.work import (
    AwaitingGrant,
    Fetching,
    Idle,
    InlineUpload,
    Recipient,
    Reporting,
    ReportingFailure,
    SendingChunks,
    Training,
    UploadPhase,
)
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.system.flood_control import is_worth_logging
from fl_shared.system.frozen import replace
from fl_shared.transfer import upload
from fl_shared.transfer.publication import chunk_count
from fl_shared.transfer.upload import Sender

UPDATE_RETRY_DELAY = 5.0
"""Seconds, or up to twice as many, before an update is sent again for the first time (protocol, 5.5)."""
OFFER_RETRY_DELAY = 10.0
"""Seconds, or up to twice as many, without a further grant or an answer before an offer is repeated."""
MAX_DETAIL = 1000
"""The longest text that says why the edge cannot train, in characters."""


def report_failure(
    session: Session, selected: m.Selected, detail: str, now: float, told: str | None = None
) -> Transition:
    """Ends the round's work, and reports that the edge cannot train in this round.

    ``told``: the detail as the aggregator may know it; null if it may know all of it. The log says it of the first
    round, and then of the tenth in a row, the hundredth and so on.
    """
    said = (detail if told is None else told)[:MAX_DETAIL]
    before = session.failures[1] if session.failures[0] == detail else 0
    work = ReportingFailure(selected, said, None, 0, now)
    session = replace(session, work=work, failures=(detail, before + 1))
    notices = []
    if is_worth_logging(before, before + 1):
        failure = f"round {selected.round}: cannot train:"
        count = f" ({before + 1} rounds in a row)" if before else ""
        notices.append(LogNotice(f"{failure} {detail}{count}", "warning", told=f"{failure} {said}{count}"))
    return then(transition(session, *notices), lambda s: report(s, now))


def report(session: Session, now: float) -> Transition:
    """Sends the update or the failure, unless it was last sent to the same recipient."""
    match session.work:
        case Reporting(uncharged=charges) if charges:
            return transition(session)
        case Reporting(sent_to=recipient) | ReportingFailure(sent_to=recipient) if (
            recipient != session.recipient()
        ):
            return _send(session, now, 0)
        case _:
            return transition(session)


def due(session: Session) -> float | None:
    """Returns when `repeat` sends something, or ``None`` if it waits for something else than time.

    Nothing is sent while the edge is not admitted, or the aggregator is known to be offline.
    """
    is_aggregator_offline = session.aggregator is not None and session.aggregator.state == "offline"
    if session.recipient() is None or is_aggregator_offline:
        return None
    if isinstance(session.work, Reporting) and session.work.uncharged:
        return None
    return session.work.due if isinstance(session.work, Reporting | ReportingFailure) else None


def repeat(session: Session, now: float) -> Transition:
    """Sends the update or the failure again if that is due."""
    at = due(session)
    if at is None or now < at:
        return transition(session)
    match session.work:
        case Reporting(attempt=attempt) | ReportingFailure(attempt=attempt):
            step = (
                report_delay(session, "answer")
                if isinstance(session.work, Reporting)
                else transition(session)
            )
            return then(step, lambda s: _send(s, now, attempt + 1))
        case _:
            return transition(session)


def report_delay(session: Session, awaits: Literal["model", "answer"]) -> Transition:
    """Tells the aggregator that parts of a model, or the answer to the update, have not come in time."""
    recipient, work = session.recipient(), session.work
    if recipient is None or not session.identity.trains:
        return transition(session)
    session, seq = with_next_seq(session)
    client = session.identity.client
    delayed = m.Delayed(
        run=recipient.run,
        incarnation=recipient.incarnation,
        seq=seq,
        client=client,
        session=recipient.session,
        round=None if isinstance(work, Idle) else work.selected.round,
        awaits=awaits,
    )
    return transition(session, Send(t.UpdatesTopic(client), delayed))


def _send(session: Session, now: float, attempt: int) -> Transition:
    recipient, work = session.recipient(), session.work
    if recipient is None:
        return transition(session)
    match work:
        case Reporting():
            return _send_update(session, work, recipient, now, attempt)
        case ReportingFailure(selected=selected, detail=detail):
            session, seq = with_next_seq(session)
            failed = m.TrainingFailed(
                run=recipient.run,
                incarnation=recipient.incarnation,
                seq=seq,
                client=session.identity.client,
                session=recipient.session,
                round=selected.round,
                detail=detail,
            )
            due = now + retry_delay(session.identity.client, attempt, UPDATE_RETRY_DELAY)
            session = replace(session, work=replace(work, sent_to=recipient, attempt=attempt, due=due))
            return transition(session, Send(t.UpdatesTopic(session.identity.client), failed))
        case Idle() | Fetching() | Training():
            return transition(session)
        case _:
            assert_never(work)


def _send_update(
    session: Session, work: Reporting, recipient: Recipient, now: float, attempt: int
) -> Transition:
    """Sends the update whole if that is allowed (protocol, 6.1), and otherwise offers it.

    It is sent whole only once: what did not arrive may be too large for the broker, which need not say so.
    """
    identity, connection, update = session.identity, session.connection, work.update
    assert connection is not None
    if identity.requires is not None and update.plan is None and update.base is not None:
        return report_failure(session, work.selected, MASKED_ONLY, now)
    session, seq = with_next_seq(session)
    sender = _sender(session, recipient, work)
    message: m.Update | m.Offer
    phase: UploadPhase
    if (
        not attempt
        and update.size <= work.selected.inline_limit
        and upload.fits_whole(sender, seq, update, connection.maximum_packet_size)
    ):
        message, phase = upload.update_message(sender, seq, update), InlineUpload()
    else:
        # The chunk size stays as it was, if it still fits, so that the chunks that have arrived can be used.
        preferred_size = (
            identity.chunk_size
            if isinstance(work.upload_phase, InlineUpload)
            else work.upload_phase.chunk_size
        )
        try:
            chunk_size = upload.chunk_size_for(sender, update, preferred_size, connection.maximum_packet_size)
        except ValueError as error:
            return report_failure(session, work.selected, str(error), now)
        message, phase = upload.offer_message(sender, seq, update, chunk_size), AwaitingGrant(chunk_size)
    due = now + retry_delay(identity.client, attempt, UPDATE_RETRY_DELAY)
    work = replace(work, sent_to=recipient, attempt=attempt, due=due, upload_phase=phase)
    return transition(replace(session, work=work), Send(t.UpdatesTopic(identity.client), message))


def _sender(session: Session, recipient: Recipient, work: Reporting) -> Sender:
    return Sender(
        session.identity.client, recipient.session, recipient.run, recipient.incarnation, work.selected.round
    )


# --- chunks -----------------------------------------------------------------------------------------------


def granted(session: Session, reply: m.Grant, now: float) -> Transition:
    """Sends the chunks that are granted, once for each grant (protocol, 6.3).

    A grant for another update, or from another incarnation, is ignored.
    """
    match session.work:
        case (
            Reporting(
                selected=selected,
                update=update,
                sent_to=Recipient() as recipient,
                upload_phase=AwaitingGrant() | SendingChunks() as phase,
            ) as work
        ) if recipient == session.recipient() and reply.incarnation == recipient.incarnation:
            chunks = upload.granted_chunks(reply.chunks, chunk_count(update.size, phase.chunk_size))
            if not chunks or not _is_answer_to(session, reply, selected, update.digest):
                return transition(session)
        case _:
            return transition(session)
    send = SendChunks(_sender(session, recipient, work), update, phase.chunk_size, chunks, session.seq)
    due = now + retry_delay(session.identity.client, 0, OFFER_RETRY_DELAY)
    work = replace(work, attempt=0, due=due, upload_phase=SendingChunks(phase.chunk_size))
    return transition(replace(session, work=work, seq=session.seq + len(chunks)), send)


# --- the answer -------------------------------------------------------------------------------------------


def accepted(session: Session, reply: m.Accepted) -> Transition:
    """Ends the round's work, since the aggregator has stored the update."""
    match session.work:
        case Reporting(selected=selected, update=update) if _is_answer_to(
            session, reply, selected, update.digest
        ):
            notice = LogNotice.of_no_data(f"round {reply.round}: accepted")
            return then(cancel_work(session.answered(reply.round)), lambda s: transition(s, notice))
        case _:
            return transition(session)


def rejected(session: Session, reply: m.Rejected) -> Transition:
    """Ends the round's work, since the aggregator will not count the update, or knows of the failure."""
    match session.work:
        case Reporting(selected=selected, update=update) if _is_answer_to(
            session, reply, selected, update.digest
        ):
            pass
        case ReportingFailure(selected=selected) if _is_answer_to(session, reply, selected, None):
            pass
        case _:
            return transition(session)
    notice = LogNotice.of_no_data(f"round {reply.round}: rejected: {reply.reason}: {reply.detail}", "warning")
    session = session.answered(reply.round)
    return then(own_state.drop_rejected(session, reply.digest), cancel_work, lambda s: transition(s, notice))


def _is_answer_to(
    session: Session, reply: m.Grant | m.Accepted | m.Rejected, selected: m.Selected, digest: str | None
) -> bool:
    return (
        session.membership is not None
        and reply.run == session.membership.run
        and reply.round == selected.round
        and reply.digest == digest
    )
