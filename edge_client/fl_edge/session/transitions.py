"""How steps are put together: every part of the machine takes a session and gives a state and effects."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from fl_edge.session.effects import Cancel, Disconnect, Effect, LogNotice, Send
from fl_edge.session.state import (
    Evaluating,
    Fetching,
    Idle,
    LoadingPartition,
    NotEvaluating,
    Session,
    SessionState,
    Stopped,
    Training,
)
from fl_shared.errors import INTERRUPTED
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.system.backoff import backoff

Transition = tuple[SessionState, tuple[Effect, ...]]


def transition(session: Session, *effects: Effect) -> Transition:
    return session, effects


def then(step: Transition, *follow: Callable[[Session], Transition]) -> Transition:
    """Goes on with each of ``follow`` in turn, unless the edge has stopped."""
    for go_on in follow:
        state, effects = step
        if isinstance(state, Stopped):
            return step
        state, more = go_on(state)
        step = state, effects + more
    return step


def with_next_seq(session: Session) -> tuple[Session, int]:
    """The session, and the ``seq`` of the message that it is about to send."""
    return replace(session, seq=session.seq + 1), session.seq


def with_next_job(session: Session) -> tuple[Session, int]:
    """The session, and the number of the job that it is about to start."""
    return replace(session, job=session.job + 1), session.job


def retry_delay(client: str, attempt: int, first: float, most: float = 30.0) -> float:
    """Seconds until the next try: ``first`` to twice that at first, doubling, never above ``most``.

    The jitter is drawn from client and attempt: edges spread out, and the machine stays a function.
    """
    drawn = int.from_bytes(hashlib.sha256(f"{client}:{attempt}".encode()).digest()[:4], "big") / 2**32
    return backoff(attempt + 1, first, most, jitter=(1.0 - drawn) / 2)


def cancel_work(session: Session) -> Transition:
    """No work any more; a job of it is cancelled."""
    match session.work:
        case Fetching(job=job) | Training(job=job):
            return replace(session, work=Idle()), (Cancel(job),)
        case _:
            return replace(session, work=Idle()), ()


def cancel_evaluation(session: Session) -> Transition:
    match session.evaluation:
        case Evaluating(job=job):
            return replace(session, evaluation=NotEvaluating()), (Cancel(job),)
        case _:
            return replace(session, evaluation=NotEvaluating()), ()


def stop(session: Session, exit_code: int, reason: str) -> Transition:
    """The end: all jobs cancelled, presence taken back, disconnected."""
    effects: list[Effect] = [
        Cancel(phase.job)
        for phase in (session.partition_state, session.work, session.evaluation)
        if isinstance(phase, LoadingPartition | Fetching | Training | Evaluating)
    ]
    if exit_code != INTERRUPTED:
        effects.append(LogNotice(reason, "error"))
    if session.connection is not None:
        client = session.identity.client
        farewell = m.ClientPresence(client=client, state="offline", session=session.connection.session)
        effects.append(Send(t.PresenceTopic(client), farewell, retain=True))
    effects.append(Disconnect())
    return Stopped(session.identity, exit_code, reason), tuple(effects)
