"""Signs the set of updates that a masked round sums, and opens it (protocol, section 10).

It does so while a training goes on, and also if the edge has sent no update, or its update was rejected.
"""

from __future__ import annotations

from typing import Any, assert_never

from fl_edge.session.effects import LogNotice, Send, WorkOutAnswer
from fl_edge.session.events import Answered, UnmaskingAsked
from fl_edge.session.state import LoadedPartition, Session
from fl_edge.session.transitions import Transition, retry_delay, then, transition, with_next_seq
from fl_edge.session.work import Answer, Answering, Calm, Recipient, Refusal, Shares, Signature
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.system.frozen import replace

ANSWER_RETRY_DELAY = 5.0
"""Seconds, or up to twice as many, before an answer is sent again for the first time."""


def asked(session: Session, event: UnmaskingAsked) -> Transition:
    """Notes what the edge is asked for, unless it is asked for something later already.

    It may come before the admission and before the selection of its round, since the broker retains all of them.
    """
    new, state = event.asked, session.unmasking
    deadline = event.now + new.seconds_left
    if session.membership is not None and session.membership.run != new.run:
        return transition(session)
    if isinstance(state, Answering) and state.asked.run == new.run:
        if _order(new) < _order(state.asked):
            return transition(session)
        if _is_same(new, state.asked):
            return transition(replace(session, unmasking=replace(state, deadline=deadline)))
    return transition(replace(session, unmasking=Answering(new, deadline)))


def _order(asked: m.Closing | m.Reveal) -> tuple[int, bool]:
    return asked.round, isinstance(asked, m.Reveal)


def _is_same(one: m.Closing | m.Reveal, other: m.Closing | m.Reveal) -> bool:
    """Whether only the envelopes differ: an aggregator that was resumed asks again."""
    envelope = {"incarnation": other.incarnation, "seq": other.seq, "seconds_left": other.seconds_left}
    return one.model_copy(update=envelope) == other


def work_out(session: Session) -> Transition:
    """Asks for the answer as soon as all is there that it needs."""
    state, kept, loaded = session.unmasking, session.masked_run, session.partition_state
    recipient, messages = session.recipient(), session.own_retained_messages()
    if not isinstance(state, Answering) or state.begun or recipient is None:
        return transition(session)
    selected = messages.selected if messages else None
    if selected is None or (selected.run, selected.round) != (state.asked.run, state.asked.round):
        return transition(session)
    if kept is None or kept.run != recipient.run or not isinstance(loaded, LoadedPartition):
        return transition(session)
    effect = WorkOutAnswer(
        state.asked, selected, loaded.partition, loaded.manifest, loaded.values, kept.body(selected.round)
    )
    return transition(replace(session, unmasking=replace(state, begun=True)), effect)


def answered(session: Session, event: Answered) -> Transition:
    """Sends the answer."""
    state = session.unmasking
    if not isinstance(state, Answering) or state.asked != event.asked:
        return transition(session)
    session = replace(session, unmasking=replace(state, answer=event.answer))
    notice = _notice(state.asked, event.answer)
    return then(transition(session, notice), lambda s: report(s, event.now))


def _notice(asked: m.Closing | m.Reveal, answer: Answer) -> LogNotice:
    what = f"the set of {len(asked.included)} updates"
    match answer:
        case Signature():
            return LogNotice.of_no_data(f"round {asked.round}: signs {what}")
        case Shares(unopened=()):
            return LogNotice.of_no_data(f"round {asked.round}: opens {what}")
        case Shares(unopened=unopened):
            return LogNotice.of_no_data(
                f"round {asked.round}: opens {what}, but not what these have sent: {', '.join(unopened)}",
                "warning",
            )
        case Refusal(reason=reason, detail=detail):
            verb = "sign" if isinstance(asked, m.Closing) else "open"
            return LogNotice.of_no_data(
                f"round {asked.round}: does not {verb} {what}: {reason}: {detail}", "warning"
            )
        case _:
            assert_never(answer)


# --- sending ----------------------------------------------------------------------------------------------


def report(session: Session, now: float) -> Transition:
    """Sends the answer, unless it was last sent to the same recipient."""
    match session.unmasking:
        case Answering(answer=answer, sent_to=recipient) if (
            answer is not None and recipient != session.recipient()
        ):
            return _send(session, now, 0)
        case _:
            return transition(session)


def due(session: Session) -> float | None:
    """Returns when `repeat` does something, or ``None`` if it waits for something else than time."""
    state = session.unmasking
    if not isinstance(state, Answering):
        return None
    is_offline = session.aggregator is not None and session.aggregator.state == "offline"
    if state.answer is None or session.recipient() is None or is_offline:
        return state.deadline
    return min(state.due, state.deadline)


def repeat(session: Session, now: float) -> Transition:
    """Sends the answer again if that is due, or gives up: the aggregator's time for the round is over."""
    at, state = due(session), session.unmasking
    if not isinstance(state, Answering) or at is None or now < at:
        return transition(session)
    if now < state.deadline:
        return _send(session, now, state.attempt + 1)
    number, what = state.asked.round, "signature" if isinstance(state.asked, m.Closing) else "shares"
    text = (
        f"round {number}: the aggregator asked for this edge's {what}, but its selection did not come in time"
        if state.answer is None
        else f"round {number}: the aggregator did not say in time what has become of this edge's {what}"
    )
    return transition(replace(session, unmasking=Calm()), LogNotice.of_no_data(text, "warning"))


def _send(session: Session, now: float, attempt: int) -> Transition:
    recipient, state, client = session.recipient(), session.unmasking, session.identity.client
    if recipient is None or not isinstance(state, Answering) or state.answer is None:
        return transition(session)
    session, seq = with_next_seq(session)
    message = _message(client, recipient, seq, state.asked.round, state.answer)
    due = now + retry_delay(client, attempt, ANSWER_RETRY_DELAY)
    state = replace(state, sent_to=recipient, attempt=attempt, due=due)
    return transition(replace(session, unmasking=state), Send(t.UpdatesTopic(client), message))


def _message(
    client: str, recipient: Recipient, seq: int, number: int, answer: Answer
) -> m.Agreed | m.Opened | m.Declined:
    envelope: dict[str, Any] = {
        "run": recipient.run,
        "incarnation": recipient.incarnation,
        "seq": seq,
        "client": client,
        "session": recipient.session,
        "round": number,
        "closing": answer.closing,
    }
    match answer:
        case Signature(signature=signature):
            return m.Agreed(**envelope, signature=signature)
        case Shares(digest=digest, shares=shares, unopened=unopened):
            return m.Opened(**envelope, digest=digest, shares=shares, unopened=unopened)
        case Refusal(reason=reason, detail=detail):
            return m.Declined(**envelope, reason=reason, detail=detail)
        case _:
            assert_never(answer)


# --- the end ----------------------------------------------------------------------------------------------


def accepted(session: Session, reply: m.Accepted) -> Transition:
    """Ends it, since the aggregator has the shares."""
    match session.unmasking:
        case Answering(asked=asked, answer=Shares(digest=digest)) if (
            reply.run,
            reply.round,
            reply.digest,
        ) == (asked.run, asked.round, digest):
            return transition(replace(session, unmasking=Calm()))
        case _:
            return transition(session)


def ended(session: Session, run: str | None = None, number: int | None = None) -> Transition:
    """Ends it, since round ``number`` of ``run`` or a later one has ended; without these, in any case."""
    state = session.unmasking
    if not isinstance(state, Answering):
        return transition(session)
    if run is not None and number is not None and (state.asked.run != run or state.asked.round > number):
        return transition(session)
    return transition(replace(session, unmasking=Calm()))
