"""Takes part in rounds: is selected, fetches the base, and trains (protocol, section 5)."""

from __future__ import annotations

from fl_edge.session import charging, own_state, reporting
from fl_edge.session.effects import Fetch, LogNotice, Train
from fl_edge.session.events import Fetched, JobFailed, ResultSeen, SelectionCleared, SelectionSeen, Trained
from fl_edge.session.policy import problem_of_masking
from fl_edge.session.registration import register
from fl_edge.session.state import LoadedPartition, Registering, RetainedMessages, Session
from fl_edge.session.transitions import (
    Transition,
    cancel_work,
    then,
    told_reason,
    transition,
    with_next_job,
)
from fl_edge.session.work import Fetching, Idle, Reporting, ReportingFailure, Training
from fl_shared.protocol import abilities
from fl_shared.protocol import messages as m
from fl_shared.system.frozen import replace
from fl_shared.tensors.encodings import registry

MIN_FETCH_TIMEOUT = 10.0
"""The least time allowed for fetching a base, in seconds, however little the round has left."""
VERSIONS_RETAINED = 2
"""Versions that the broker retains: the newest and the one before it."""
MAX_INCARNATIONS = 4
"""Incarnations whose retained messages are remembered. All but one of them have ended."""


# --- retained messages ------------------------------------------------------------------------------------


def retained_messages_of(session: Session, message: m.Scoped) -> RetainedMessages:
    """Returns the retained messages known of the incarnation that sent ``message``, perhaps none."""
    for messages in session.retained_messages:
        if (messages.run, messages.incarnation) == (message.run, message.incarnation):
            return messages
    return RetainedMessages(message.run, message.incarnation)


def store_retained_messages(session: Session, messages: RetainedMessages) -> Session:
    """Stores these messages as the newest, in place of earlier ones of the same incarnation.

    Beyond `MAX_INCARNATIONS` the oldest are dropped, but never those of the incarnation that admitted the
    edge.
    """
    others = [
        p for p in session.retained_messages if (p.run, p.incarnation) != (messages.run, messages.incarnation)
    ]
    own_messages = session.own_retained_messages()
    while len(others) >= MAX_INCARNATIONS:
        others.remove(next(p for p in others if p is not own_messages))
    return replace(session, retained_messages=(*others, messages))


def selection_seen(session: Session, event: SelectionSeen) -> Transition:
    """Stores a selection, unless one of a later round is known.

    For the same round, a selection on the edge's own topic takes precedence over one on the topic of the
    round.
    """
    messages, selected = retained_messages_of(session, event.selected), event.selected
    if messages.selected is not None and messages.selected.round > selected.round:
        return transition(session)
    # On the topic of the round, a selection without a cohort says nothing about this edge.
    has_own_selection = (
        messages.selected is not None and messages.selected.round == selected.round and messages.on_own_topic
    )
    if has_own_selection and not event.on_own_topic:
        return transition(session)
    return transition(
        store_retained_messages(
            session, replace(messages, selected=selected, on_own_topic=event.on_own_topic)
        )
    )


def selection_cleared(session: Session, event: SelectionCleared) -> Transition:
    """Forgets the selections that were cleared, since their round is no longer open, and stops their work.

    The message does not name the run, so the selections of that round are forgotten for all incarnations.
    """

    def is_meant(messages: RetainedMessages) -> bool:
        if messages.selected is None:
            return False
        if event.round is None or messages.selected.ticket:
            return event.round is None and messages.on_own_topic
        return messages.selected.round == event.round

    cleared_rounds = [
        messages.selected.round
        for messages in session.retained_messages
        if messages.selected and is_meant(messages)
    ]
    if event.round is not None:
        # The current work may be for a selection of an earlier incarnation.
        cleared_rounds.append(event.round)
    remaining = tuple(
        replace(p, selected=None, on_own_topic=False) if is_meant(p) else p for p in session.retained_messages
    )
    session = replace(session, retained_messages=remaining)
    match session.work:
        case Fetching() | Training() | ReportingFailure() as work if (
            work.selected.round in cleared_rounds and (event.round is None or not work.selected.ticket)
        ):
            return _stop_work(session, "the round is no longer open")
        case _:
            return transition(session)


def result_seen(session: Session, event: ResultSeen) -> Transition:
    """Stops the work of a round that has ended, so that it is not taken up again."""
    result = event.result
    return then(own_state.settle_by_result(session, result), lambda s: _stop_ended_round(s, result))


def _stop_ended_round(session: Session, result: m.Result) -> Transition:
    if session.membership is None or result.run != session.membership.run:
        return transition(session)
    session = replace(session, last_handled_round=max(session.last_handled_round, result.round))
    match session.work:
        case Fetching() | Training() | ReportingFailure() as work if (
            work.selected.round == result.round and not work.selected.ticket
        ):
            return _stop_work(session, f"the round was {result.outcome} without this edge")
        case _:
            # A finished update is kept until it is answered, even if that answer can only be "late".
            return transition(session)


def _stop_work(session: Session, reason: str) -> Transition:
    assert isinstance(session.work, Fetching | Training | ReportingFailure)
    notice = LogNotice.of_no_data(f"round {session.work.selected.round}: stopped: {reason}")
    return then(cancel_work(session), lambda s: transition(s, notice))


# --- work in a round --------------------------------------------------------------------------------------


def start_round(session: Session, now: float) -> Transition:
    """Starts the open round if the edge is selected for it and it is newer than the current work.

    If the edge is not selected for the newer round, it only stops working for the earlier one.
    """
    messages = session.own_retained_messages()
    selected = messages.selected if messages else None
    if messages is None or selected is None:
        return transition(session)
    if selected.round <= (session.last_answered_round if selected.ticket else session.last_handled_round):
        return transition(session)
    work = session.work
    if not isinstance(work, Idle) and selected.round <= work.selected.round:
        return transition(session)
    # No message that the broker delivers late may take the edge back to an earlier round.
    session = replace(session, last_handled_round=max(session.last_handled_round, selected.round - 1))
    client = session.identity.client
    if not (messages.on_own_topic or (selected.cohort is not None and client in selected.cohort)):
        if isinstance(work, Fetching | Training | ReportingFailure):
            return _stop_work(session, f"round {selected.round} has started")
        return transition(session)
    if own_state.is_undecided(session, selected):
        # The answer says what has counted, and the round begins then.
        asked = isinstance(session.registration, Registering)
        return transition(session) if asked else register(session, now, 0)
    step = (
        transition(session)
        if isinstance(work, Idle | Reporting)
        else _stop_work(session, "selected for a later round")
    )
    return then(step, lambda s: _fetch_or_train(s, selected, now))


def _fetch_or_train(session: Session, selected: m.Selected, now: float) -> Transition:
    membership, state = session.membership, session.partition_state
    assert membership is not None
    if not session.identity.trains:
        return reporting.report_failure(session, selected, "this edge does not have the role train", now)
    if selected.task != membership.task:
        detail = (
            f"task: {selected.task!r} in the selection, but this edge was admitted to {membership.task!r}"
        )
        return reporting.report_failure(session, selected, detail, now)
    if selected.base is not None and (problem := charging.spent(session)):
        return reporting.report_failure(session, selected, problem, now)
    if problem := problem_of_masking(session, selected):
        return reporting.report_failure(session, selected, problem, now)
    if problem := _problem_of_encoding(session, selected.encoding):
        detail = f"encoding in the selection: {problem}"
        return reporting.report_failure(session, selected, detail, now)
    training, correction = selected.training, selected.correction
    needed = abilities.needed(
        None if correction is None else correction.name,
        training.clip_gradients,
        training.logit_adjustment,
        bf16=training.precision == "bf16",
    )
    if not isinstance(state, LoadedPartition) or state.partition != membership.partition:
        # The round is started when the partition has been loaded.
        return transition(session)
    if lacking := abilities.lacking(needed, state.abilities):
        return reporting.report_failure(session, selected, lacking, now)
    selected = _with_newest_base(session, selected)
    notice = LogNotice.of_no_data(f"selected for round {selected.round}")
    session, job = with_next_job(session)
    if selected.base is None:
        session = replace(session, work=Training(job, selected))
        return transition(session, notice, Train(job, selected, state.partition))
    session = replace(session, work=Fetching(job, selected))
    timeout = max(MIN_FETCH_TIMEOUT, selected.seconds_left)
    return transition(session, notice, Fetch(job, selected.base.digest, timeout, selected.companions))


def _problem_of_encoding(session: Session, name: str) -> str | None:
    """Says why the edge cannot send updates in an encoding; null if it can."""
    if registry.kind_of(name) not in session.identity.encodings:
        has = " or ".join(map(repr, session.identity.encodings))
        return f"{name!r}, but this edge can send updates in {has}"
    try:
        registry.get(name)
    except ValueError as error:
        return str(error)
    return None


def _with_newest_base(session: Session, selected: m.Selected) -> m.Selected:
    """Returns a ticket with the newest version as its base: that of a ticket may be cleared at the broker.

    If a mean of versions is announced, the base stays as it is, since a mean is no base.
    """
    messages = session.own_retained_messages()
    announced = messages.announced if messages else None
    if (
        not selected.ticket
        or selected.base is None
        or announced is None
        or announced.first_version is not None
    ):
        return selected
    if announced.version <= selected.base.version:
        return selected
    newest = m.ModelReference(version=announced.version, digest=announced.digest)
    return selected.model_copy(update={"base": newest})


def renew_base(session: Session, now: float) -> Transition:
    """Fetches the newest version if that is being fetched which a ticket has named, and it is no longer retained."""
    match session.work:
        case Fetching(selected=selected) if selected.base is not None:
            base = _with_newest_base(session, selected).base
            if base is None or base.version < selected.base.version + VERSIONS_RETAINED:
                return transition(session)
            return then(cancel_work(session), lambda s: _fetch_or_train(s, selected, now))
        case _:
            return transition(session)


def fetched(session: Session, event: Fetched) -> Transition:
    """Starts training when the base of the round has been fetched."""
    match session.work, session.partition_state:
        case Fetching(job=job, selected=selected), LoadedPartition(partition=partition) if job == event.job:
            session = replace(session, work=Training(job, selected))
            return transition(session, Train(job, selected, partition, session.charged))
        case _:
            return transition(session)


def trained(session: Session, event: Trained) -> Transition:
    """Keeps the finished update, and reports it."""
    match session.work:
        case Training(job=job, selected=selected) if job == event.job:
            update = event.update
            loss = (update.metrics.train or {}).get("loss")
            loss_text = "" if loss is None else f", loss {loss:.4f}"
            notice = LogNotice(f"round {selected.round}: trained in {update.seconds:.1f} s{loss_text}")
            if event.body is not None:
                notice = LogNotice.of_no_data(f"round {selected.round}: trained, and masked the update")
                session = _with_body(session, selected, event.body)
            if problem := charging.problem_of_noise(session, update, event):
                return reporting.report_failure(session, selected, problem, event.now)
            update = charging.told(session, selected, event)
            work = Reporting(selected, update, None, 0, event.now, uncharged=event.charges)
            return then(
                transition(
                    replace(session, work=work, failures=("", 0)), notice, *charging.notices(session, event)
                ),
                lambda s: own_state.stage(s, selected, event),
                lambda s: charging.charge(s, event.now),
            )
        case _:
            return transition(session)


def _with_body(session: Session, selected: m.Selected, body: str) -> Session:
    kept = session.masked_run
    if kept is None or kept.run != selected.run:
        return session
    return replace(session, masked_run=replace(kept, made=(selected.round, body)))


def work_failed(session: Session, event: JobFailed) -> Transition:
    """Reports that the edge cannot train in this round, since its job has failed."""
    match session.work:
        case Fetching(job=job, selected=selected) if (
            job == event.job and _with_newest_base(session, selected) != selected
        ):
            return _fetch_or_train(session, selected, event.now)
        case Fetching(job=job, selected=selected) | Training(job=job, selected=selected) if job == event.job:
            told = told_reason(session, event)
            if event.spent:
                session = replace(session, examples_spent=event.told)
            return reporting.report_failure(session, selected, event.detail, event.now, told)
        case _:
            return transition(session)
