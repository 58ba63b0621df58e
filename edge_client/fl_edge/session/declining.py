"""An edge that cannot take part in a run tells the aggregator why (protocol, 4.9).

It waits for another run, unless its own data are wrong: then it ends.
"""

from __future__ import annotations

from typing import Any

from fl_edge.session.effects import Cancel, LogNotice, Send
from fl_edge.session.events import JobFailed
from fl_edge.session.state import (
    Declined,
    Fault,
    LoadingPartition,
    Membership,
    NoPartition,
    Offline,
    Session,
)
from fl_edge.session.transitions import (
    Transition,
    cancel_evaluation,
    cancel_work,
    retry_delay,
    stop,
    then,
    told_reason,
    transition,
    with_next_seq,
)
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.abilities import TICKETS
from fl_shared.protocol.task_spec import task_name
from fl_shared.system.frozen import replace

RETRY_DELAY = 1.0
"""Seconds, or up to twice as many, before a registration is repeated for the first time."""


def with_registration(session: Session, **more: Any) -> tuple[Session, Send]:
    """Returns the session, which must be connected, and the registration that it is about to send, with ``more``."""
    identity, connection = session.identity, session.connection
    assert connection is not None
    session, seq = with_next_seq(session)
    tickets = (
        (TICKETS,) if identity.edges is None else ()
    )  # a regional aggregator opens rounds, one after the other
    message = m.Registration(
        seq=seq,
        client=identity.client,
        session=connection.session,
        device=identity.device,
        roles=identity.roles,
        task=None if identity.task is None else task_name(identity.task),
        encodings=identity.encodings,
        edges=identity.edges,
        via=identity.via,
        environment=identity.environment,
        **{**more, "abilities": (*more.get("abilities", identity.abilities), *tickets)},
    )
    return session, Send(t.RegisterTopic(identity.client), message)


def has_declined(session: Session, reply: m.Reply) -> bool:
    """Whether the edge has declined to take part in this run; the reply may be late."""
    phase = session.registration
    return isinstance(phase, Declined) and (phase.run, phase.incarnation) == (reply.run, reply.incarnation)


def decline_evaluation(session: Session, event: JobFailed) -> Transition:
    """Leaves the run, since the edge can only evaluate, and cannot do that."""
    assert session.membership is not None
    return decline_after(session, session.membership, event)


def decline_after(session: Session, run: Membership, event: JobFailed) -> Transition:
    """Leaves the run because of a job that has failed; see `decline`."""
    return then(
        leave(session, run, event.detail, event.fault, told=told_reason(session, event)),
        lambda s: _tell(s, event.now),
    )


def decline(session: Session, run: m.Reply | Membership, reason: str, now: float) -> Transition:
    """Leaves the run, ends all work for it, and tells its aggregator why."""
    return then(leave(session, run, reason), lambda s: _tell(s, now))


def _tell(session: Session, now: float) -> Transition:
    return transition(session) if isinstance(session.registration, Offline) else send_decline(session, now, 0)


def leave(
    session: Session,
    run: m.Reply | Membership,
    reason: str,
    fault: Fault = "run",
    awaits: str = "another run",
    told: str | None = None,
) -> Transition:
    """Leaves the run and ends all work for it; ``awaits`` is for people.

    ``told``: the reason as the aggregator may know it; null if it may know all of it.
    """
    start = f"does not take part in run {run.run}: "
    end = {
        "data": "",
        "either": "; it ends if the data of other edges fit",
        "run": f"; waiting for {awaits}",
    }[fault]
    said = (reason if told is None else told)[: m.MAX_UNABLE]
    notice = LogNotice(f"{start}{reason}{end}", "error", told=f"{start}{said}{end}")
    loading = session.partition_state
    effects = (Cancel(loading.job),) if isinstance(loading, LoadingPartition) else ()
    phase = session.registration
    if not isinstance(phase, Offline):
        phase = Declined(phase.connection, run.run, run.incarnation, said, 0, None, fault)
    session = replace(session, registration=phase, membership=None, partition_state=NoPartition())
    return then(transition(session, *effects, notice), cancel_work, cancel_evaluation)


def send_decline(session: Session, now: float, attempt: int) -> Transition:
    """Tells the aggregator why the edge does not take part, and sets the time of the repetition."""
    phase = session.registration
    assert isinstance(phase, Declined)
    session, send = with_registration(
        session, run=phase.run, incarnation=phase.incarnation, unable=phase.reason
    )
    due = now + retry_delay(session.identity.client, attempt, RETRY_DELAY)
    return transition(replace(session, registration=replace(phase, attempt=attempt, due=due)), send)


def end_if_data_are_wrong(session: Session) -> Transition:
    """Stops an edge that has declined because of its own data, once the aggregator knows why.

    If the task's options may be wrong instead, it waits until the run has a model: then other edges' data fit.
    """
    phase = session.registration
    if not isinstance(phase, Declined) or phase.due is not None:
        return transition(session)
    has_model = any(kept.run == phase.run and kept.announced for kept in session.retained_messages)
    if phase.fault == "data":
        return stop(session, 2, "stopped, since its data cannot be used", told="its data cannot be used")
    if phase.fault == "either" and has_model:
        unfit = f"its data do not fit run {phase.run}"
        return stop(session, 2, f"stopped, since {unfit}, but those of other edges do", told=unfit)
    return transition(session)
