"""Builds transitions: each function of the machine takes a session, and returns a state and effects."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from fl_edge.session.effects import Cancel, Disconnect, Effect, LogNotice, Send
from fl_edge.session.events import JobFailed
from fl_edge.session.state import LoadingPartition, Session, SessionState, Stopped
from fl_edge.session.work import Evaluating, Fetching, Idle, NotEvaluating, Training
from fl_shared.errors import INTERRUPTED
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.system.backoff import backoff
from fl_shared.system.frozen import replace
from fl_shared.system.text import shortened
from fl_shared.transfer.upload import FinishedUpdate

Transition = tuple[SessionState, tuple[Effect, ...]]
"""The new state, and the effects to perform, in this order."""


def transition(session: Session, *effects: Effect) -> Transition:
    """Returns the session with these effects."""
    return session, effects


def then(step: Transition, *next_steps: Callable[[Session], Transition]) -> Transition:
    """Continues with each of the next steps in turn, unless the edge has stopped, and joins the effects."""
    for next_step in next_steps:
        state, effects = step
        if isinstance(state, Stopped):
            return step
        state, more_effects = next_step(state)
        step = state, effects + more_effects
    return step


def discreet(
    update: FinishedUpdate, selected: m.Selected, declared: tuple[m.MetricDeclaration, ...] | None
) -> FinishedUpdate:
    """Returns an update without what it says of the edge's data besides its values, and what ``selected`` asks for.

    ``declared``: the metrics of its task; null if the edge does not tell its accuracy either.
    """
    metrics = m.UpdateMetrics()
    if selected.masked is None and selected.privacy is not None and selected.privacy.accuracy:
        name = None if declared is None else m.primary_of(declared).name
        told = {key: value for key, value in (update.metrics.before or {}).items() if key == name}
        metrics = m.UpdateMetrics(before=told or None)
    return replace(update, examples=min(1, update.examples), steps=0, seconds=0.0, metrics=metrics)


def told_reason(session: Session, event: JobFailed) -> str:
    """Returns why a job has failed, as the aggregator may know it; the edge's log has all of it."""
    return event.told if session.is_discreet else event.detail


def with_next_seq(session: Session) -> tuple[Session, int]:
    """Returns the session, and the sequence number of the message that it is about to send."""
    return replace(session, seq=session.seq + 1), session.seq


def with_next_job(session: Session) -> tuple[Session, int]:
    """Returns the session, and the number of the job that it is about to start."""
    return replace(session, job=session.job + 1), session.job


def retry_delay(client: str, attempt: int, first: float, most: float = 30.0) -> float:
    """Returns the seconds until the next attempt, which double with each attempt up to a maximum.

    At attempt 0 they are one to two times the first delay. The jitter follows from client and attempt: edges
    spread out, and the machine stays a pure function.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{client}:{attempt}".encode()).digest()[:4], "big") / 2**32
    return backoff(attempt + 1, first, most, jitter=(1.0 - drawn) / 2)


def cancel_work(session: Session) -> Transition:
    """Ends the work of the round, and cancels its job if there is one."""
    match session.work:
        case Fetching(job=job) | Training(job=job):
            return replace(session, work=Idle()), (Cancel(job),)
        case _:
            return replace(session, work=Idle()), ()


def cancel_evaluation(session: Session) -> Transition:
    """Ends the evaluation, and cancels its job if there is one."""
    match session.evaluation:
        case Evaluating(job=job):
            return replace(session, evaluation=NotEvaluating()), (Cancel(job),)
        case _:
            return replace(session, evaluation=NotEvaluating()), ()


def stop(session: Session, exit_code: int, reason: str, told: str) -> Transition:
    """Stops the edge: cancels all jobs, publishes that it is offline, and disconnects.

    ``reason`` is logged as an error, unless the exit code says that the edge was interrupted. ``told``: the reason as
    everybody may know it who reads the edge's presence, which is not sealed.
    """
    effects: list[Effect] = [
        Cancel(phase.job)
        for phase in (session.partition_state, session.work, session.evaluation)
        if isinstance(phase, LoadingPartition | Fetching | Training | Evaluating)
    ]
    if exit_code != INTERRUPTED:
        effects.append(LogNotice(reason, "error", told))
    return Stopped(session.identity, exit_code, reason), (*effects, *leaving_of(session, told), Disconnect())


def leaving_of(session: Session, reason: str) -> tuple[Send, ...]:
    """Returns the message that the edge is offline, and why; nothing without a connection."""
    if session.connection is None:
        return ()
    leaving = m.ClientPresence(
        client=session.identity.client,
        state="offline",
        session=session.connection.session,
        reason=shortened(reason, m.MAX_LEAVING),
    )
    return (Send(t.PresenceTopic(session.identity.client), leaving, retain=True),)
