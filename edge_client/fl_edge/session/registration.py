"""Registering: being known to the aggregator, with a loaded part of the data (protocol, section 4)."""

from __future__ import annotations

from dataclasses import replace

from fl_edge.session.effects import Cancel, Load, LogNotice, Send
from fl_edge.session.events import (
    AggregatorSeen,
    ConnectionEstablished,
    JobFailed,
    PartitionLoaded,
    PresenceSeen,
)
from fl_edge.session.state import (
    ActiveConnection,
    AwaitingPartition,
    Confirming,
    Idle,
    LoadedPartition,
    Loading,
    LoadingPartition,
    Membership,
    NoPartition,
    Offline,
    Registering,
    RegistrationComplete,
    Reporting,
    Session,
)
from fl_edge.session.transitions import (
    Transition,
    cancel_evaluation,
    cancel_work,
    retry_delay,
    stop,
    then,
    transition,
    with_next_job,
    with_next_seq,
)
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t

RETRY_DELAY = 1.0
"""Seconds before a registration is repeated."""
PARTITION_RETRY_DELAY = 10.0
"""Seconds before it is asked again for a part that was promised."""
MAX_LOAD_ATTEMPTS = 3
"""So often it is tried to load a part where a worker died, or the like."""


def connected(session: Session, event: ConnectionEstablished) -> Transition:
    line = ActiveConnection(event.session, event.maximum_packet_size)
    # What was heard of the aggregator on the last connection may have changed since.
    fresh = replace(session, registration=Registering(line, 0, event.now), aggregator=None)
    return then(publish_presence(fresh), lambda s: register(s, event.now, 0))


def publish_presence(session: Session) -> Transition:
    """The birth."""
    client = session.identity.client
    assert session.connection is not None
    birth = m.ClientPresence(client=client, state="online", session=session.connection.session)
    return transition(session, Send(t.PresenceTopic(client), birth, retain=True))


def register(session: Session, now: float, attempt: int) -> Transition:
    """The first registration, which names no run."""
    who, line = session.identity, session.connection
    assert line is not None
    session, seq = with_next_seq(session)
    message = m.Registration(
        seq=seq,
        client=who.client,
        session=line.session,
        device=who.device,
        roles=who.roles,
        task=who.task,
        encodings=who.encodings,
    )
    due = now + retry_delay(who.client, attempt, RETRY_DELAY)
    session = replace(session, registration=Registering(line, attempt, due))
    return transition(session, Send(t.RegisterTopic(who.client), message))


def await_partition(session: Session, now: float, attempt: int) -> Transition:
    assert session.connection is not None
    due = now + retry_delay(session.identity.client, attempt, PARTITION_RETRY_DELAY)
    return transition(replace(session, registration=AwaitingPartition(session.connection, attempt, due)))


def confirm(session: Session, now: float, attempt: int) -> Transition:
    """The second registration: which weights, and how many examples to train on."""
    who, line, part, member = (
        session.identity,
        session.connection,
        session.partition_state,
        session.membership,
    )
    assert line is not None
    assert member is not None
    assert isinstance(part, LoadedPartition)
    session, seq = with_next_seq(session)
    message = m.Registration(
        run=member.run,
        incarnation=member.incarnation,
        seq=seq,
        client=who.client,
        session=line.session,
        device=who.device,
        roles=who.roles,
        task=who.task,
        manifest=part.manifest,
        examples=part.examples,
        encodings=who.encodings,
    )
    due = now + retry_delay(who.client, attempt, RETRY_DELAY)
    session = replace(session, registration=Confirming(line, attempt, due))
    return transition(session, Send(t.RegisterTopic(who.client), message))


def repeat(session: Session, now: float) -> Transition:
    """What is due of it."""
    match session.registration:
        case Registering(attempt=attempt, due=due) if now >= due:
            return register(session, now, attempt + 1)
        case Confirming(attempt=attempt, due=due) if now >= due:
            return confirm(session, now, attempt + 1)
        case AwaitingPartition(attempt=attempt, due=due) if now >= due:
            return then(register(session, now, 0), lambda s: await_partition(s, now, attempt + 1))
        case _:
            return transition(session)


def aggregator_seen(session: Session, event: AggregatorSeen) -> Transition:
    seen, known = event.presence, session.aggregator
    if seen.state == "offline":
        # The will of a session that is not the newest says nothing.
        if known is None or known.session == seen.session:
            return transition(replace(session, aggregator=seen))
        return transition(session)
    news = known is None or _incarnation_of(known) != _incarnation_of(seen) or known.state == "offline"
    session = replace(session, aggregator=seen)
    match session.registration:
        case Offline():
            return transition(session)
        case Registering() if event.retained:
            # It was there before our registration, and will answer it.
            return transition(session)
        case _ if news and not (known is None and event.retained and session.recipient()):
            return register(session, event.now, 0)
        case _:
            return transition(session)


def _incarnation_of(presence: m.AggregatorPresence) -> tuple[str, str, int]:
    return presence.session, presence.run, presence.incarnation


def detect_restart(session: Session, message: m.Scoped, now: float) -> Transition:
    """A message of a later incarnation of the own run shows a restart whose birth was missed."""
    member = session.membership
    if (
        member
        and message.run == member.run
        and message.incarnation > member.incarnation
        and session.recipient()
    ):
        return register(session, now, 0)
    return transition(session)


def presence_seen(session: Session, event: PresenceSeen) -> Transition:
    """Says again that it is there, where an old will (or who left again) says otherwise.

    It does not argue with another session that is online: two would go on for ever.
    """
    if session.connection is None:
        return transition(session)
    seen = event.presence
    if seen is None or (seen.state == "offline" and seen.client == session.identity.client):
        step = publish_presence(session)
        if seen is not None and seen.session == session.connection.session:
            # Not an old will: somebody has said of this very session that it is gone, and the aggregator believes it.
            return then(step, lambda s: register(s, event.now, 0))
        return step
    return transition(session)


def _is_foreign_run(session: Session, run: str) -> bool:
    """Whether a run speaks that this edge has nothing to do with: it has one, and has not seen the other's birth."""
    member, born = session.membership, session.aggregator
    return member is not None and run != member.run and (born is None or born.run != run)


def admitted(session: Session, reply: m.Admitted, now: float) -> Transition:
    member, who = session.membership, session.identity
    if _is_foreign_run(session, reply.run):
        return transition(session)
    if member and reply.run == member.run and reply.incarnation < member.incarnation:
        return transition(session)
    if not who.has_task(reply.task):
        has = ", ".join((*who.tasks, *(f"{family}N" for family in who.task_prefixes)))
        return stop(
            session,
            2,
            f"run {reply.run} trains {reply.task!r}, which is not installed on this edge; it has: {has}",
        )
    if who.task not in (None, reply.task):
        return stop(session, 2, f"run {reply.run} trains {reply.task!r}, but --task is {who.task!r}")
    step = transition(session)
    if member is None or reply.run != member.run:
        step = then(
            step, cancel_work, cancel_evaluation, lambda s: transition(replace(s, last_handled_round=-1))
        )
    return then(
        step,
        lambda s: transition(
            replace(s, membership=Membership(reply.run, reply.incarnation, reply.task, reply.partition))
        ),
        lambda s: _resume_restored_update(s, reply, now),
        lambda s: _drop_received_update(s, reply),
        lambda s: _continue_registration(s, session, reply, now),
    )


def _resume_restored_update(session: Session, reply: m.Admitted, now: float) -> Transition:
    """What was finished before this process began is reported to its run; to another one it is of no use."""
    kept = session.restored_update
    if kept is None:
        return transition(session)
    session = replace(session, restored_update=None)
    if kept.selected.run != reply.run or not session.identity.trains:
        return transition(session)
    number = kept.selected.round
    said = LogNotice(f"round {number}: its update was finished before the restart")
    work = Reporting(kept.selected, kept.update, None, 0, now)
    return transition(
        replace(session, work=work, last_handled_round=max(session.last_handled_round, number - 1)), said
    )


def _drop_received_update(session: Session, reply: m.Admitted) -> Transition:
    """The aggregator has this edge's update for round ``held``: no need to send it, or to make another."""
    if reply.received_round is None:
        return transition(session)
    session = replace(session, last_handled_round=max(session.last_handled_round, reply.received_round))
    if isinstance(session.work, Idle) or session.work.selected.round != reply.received_round:
        return transition(session)
    said = LogNotice(f"round {reply.received_round}: the aggregator already has the update")
    return then(cancel_work(session), lambda s: transition(s, said))


def _continue_registration(session: Session, before: Session, reply: m.Admitted, now: float) -> Transition:
    """What an admission leads to: loading, the second registration, or nothing more to say."""
    line, part, partition, link = (
        session.connection,
        session.partition_state,
        reply.partition,
        before.registration,
    )
    assert line is not None
    named = f"admitted to run {reply.run} ({reply.task})"
    if not session.identity.trains:
        session = replace(session, registration=RegistrationComplete(line))
        return (
            transition(session)
            if isinstance(link, RegistrationComplete)
            else transition(session, LogNotice(named))
        )
    if partition is None:
        if isinstance(link, AwaitingPartition):
            return await_partition(session, now, link.attempt)
        said = LogNotice(f"{named}; data will be assigned when the run starts")
        return then(transition(session, said), lambda s: await_partition(s, now, 0))
    if isinstance(part, NoPartition) or (part.task, part.partition) != (reply.task, partition):
        said = LogNotice(f"{named} with partition {partition.index} of {partition.count}")
        return then(
            transition(session, said),
            lambda s: load_partition(s, reply.task, partition, 0),
            lambda s: transition(replace(s, registration=Loading(line))),
        )
    if isinstance(part, LoadingPartition):
        return transition(replace(session, registration=Loading(line)))
    if before.membership != session.membership or not isinstance(link, Confirming | RegistrationComplete):
        return confirm(session, now, 0)
    if isinstance(link, Confirming) and reply.examples != part.examples:
        return transition(session)  # the answer to the first registration, late or for the second time
    session = replace(session, registration=RegistrationComplete(line))
    if isinstance(link, RegistrationComplete):
        return transition(session)
    return transition(session, LogNotice(f"registered for run {reply.run} with {part.examples} examples"))


def load_partition(session: Session, task: str, partition: m.Partition, failures: int) -> Transition:
    effects = (
        (Cancel(session.partition_state.job),)
        if isinstance(session.partition_state, LoadingPartition)
        else ()
    )
    session, job = with_next_job(session)
    session = replace(session, partition_state=LoadingPartition(job, task, partition, failures))
    return transition(session, *effects, Load(job, task, partition))


def partition_loaded(session: Session, event: PartitionLoaded) -> Transition:
    part = session.partition_state
    if not isinstance(part, LoadingPartition) or part.job != event.job:
        return transition(session)
    loaded = LoadedPartition(part.task, part.partition, event.examples, event.holdout, event.manifest)
    said = LogNotice(
        f"loaded partition {part.partition.index}: {event.examples} examples, {event.holdout} held out"
    )
    session = replace(session, partition_state=loaded)
    if isinstance(session.registration, Loading):
        return then(transition(session, said), lambda s: confirm(s, event.now, 0))
    return transition(session, said)


def partition_load_failed(session: Session, event: JobFailed) -> Transition:
    part = session.partition_state
    assert isinstance(part, LoadingPartition)
    session = replace(session, partition_state=NoPartition())
    if event.user_error:
        return stop(session, 2, event.detail)
    if part.failures + 1 >= MAX_LOAD_ATTEMPTS:
        return stop(session, 1, f"cannot load the data: {event.detail}")
    said = LogNotice(f"cannot load the data, trying again: {event.detail}", "warning")
    return then(
        transition(session, said), lambda s: load_partition(s, part.task, part.partition, part.failures + 1)
    )


def refused(session: Session, reply: m.Refused) -> Transition:
    if _is_foreign_run(session, reply.run):
        return transition(session)
    return stop(session, 2, f"refused by run {reply.run}: {reply.reason}: {reply.detail}")
