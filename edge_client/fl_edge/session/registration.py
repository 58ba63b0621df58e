"""Registers the edge, so that a run knows it together with its loaded partition (protocol, section 4)."""

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
"""Seconds, or up to twice as many, before a registration is repeated for the first time."""
PARTITION_RETRY_DELAY = 10.0
"""Seconds, or up to twice as many, before an edge without a partition first asks for it again."""
MAX_LOAD_ATTEMPTS = 3
"""Attempts to load a partition before the edge stops; one may fail because a worker died."""


def connected(session: Session, event: ConnectionEstablished) -> Transition:
    """Begins to register on a new connection: publishes the birth, and sends the first registration."""
    line = ActiveConnection(event.session, event.maximum_packet_size)
    # What the last connection showed of the aggregator may have changed since.
    fresh = replace(session, registration=Registering(line, 0, event.now), aggregator=None)
    return then(publish_presence(fresh), lambda s: register(s, event.now, 0))


def publish_presence(session: Session) -> Transition:
    """Publishes the edge's birth, which the broker retains."""
    client = session.identity.client
    assert session.connection is not None
    birth = m.ClientPresence(client=client, state="online", session=session.connection.session)
    return transition(session, Send(t.PresenceTopic(client), birth, retain=True))


def register(session: Session, now: float, attempt: int) -> Transition:
    """Sends the first registration, which names no run, and sets the time of its repetition."""
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
    """Lets an admitted edge wait for a partition, and sets the time at which it registers again."""
    assert session.connection is not None
    due = now + retry_delay(session.identity.client, attempt, PARTITION_RETRY_DELAY)
    return transition(replace(session, registration=AwaitingPartition(session.connection, attempt, due)))


def confirm(session: Session, now: float, attempt: int) -> Transition:
    """Sends the second registration, with the digest of the manifest and the number of training examples.

    The edge must be admitted, and its partition loaded.
    """
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
    """Repeats the registration if that is due."""
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
    """Records the aggregator's presence, and registers again if that shows a start which is not yet known."""
    seen, known = event.presence, session.aggregator
    if seen.state == "offline":
        # The will of a session that is not the newest means nothing.
        if known is None or known.session == seen.session:
            return transition(replace(session, aggregator=seen))
        return transition(session)
    news = known is None or _incarnation_of(known) != _incarnation_of(seen) or known.state == "offline"
    session = replace(session, aggregator=seen)
    match session.registration:
        case Offline():
            return transition(session)
        case Registering() if event.retained:
            # The aggregator was online before we registered, and will answer.
            return transition(session)
        case _ if news and not (known is None and event.retained and session.recipient()):
            return register(session, event.now, 0)
        case _:
            return transition(session)


def _incarnation_of(presence: m.AggregatorPresence) -> tuple[str, str, int]:
    return presence.session, presence.run, presence.incarnation


def detect_restart(session: Session, message: m.Scoped, now: float) -> Transition:
    """Registers again after a message of the edge's run from a later incarnation, whose birth was missed."""
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
    """Publishes the birth again if the edge's presence was cleared, or overwritten as offline.

    It does not contradict another session that is online, since the two would go on forever.
    """
    if session.connection is None:
        return transition(session)
    seen = event.presence
    if seen is None or (seen.state == "offline" and seen.client == session.identity.client):
        step = publish_presence(session)
        if seen is not None and seen.session == session.connection.session:
            # Not an old will: the message declares this very session offline, and the aggregator believes it.
            return then(step, lambda s: register(s, event.now, 0))
        return step
    return transition(session)


def _is_foreign_run(session: Session, run: str) -> bool:
    """Whether the edge belongs to another run, and has not seen the birth of this one (protocol, 4.3)."""
    member, born = session.membership, session.aggregator
    return member is not None and run != member.run and (born is None or born.run != run)


def admitted(session: Session, reply: m.Admitted, now: float) -> Transition:
    """Makes the edge a member of the run that admits it, and continues its registration and its work.

    A foreign run and an earlier incarnation are ignored. If the edge cannot or must not train the run's task,
    it stops with exit code 2.
    """
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
    """Reports the update that an earlier process of this edge finished, if its run has admitted the edge.

    For another run the update is useless, and is dropped.
    """
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
    """Ends the work of round ``received_round``, whose update the aggregator already has.

    The update is neither sent nor trained again.
    """
    if reply.held is None:
        return transition(session)
    session = replace(session, last_handled_round=max(session.last_handled_round, reply.received_round))
    if isinstance(session.work, Idle) or session.work.selected.round != reply.received_round:
        return transition(session)
    said = LogNotice(f"round {reply.received_round}: the aggregator already has the update")
    return then(cancel_work(session), lambda s: transition(s, said))


def _continue_registration(session: Session, before: Session, reply: m.Admitted, now: float) -> Transition:
    """Does what follows an admission: loading, the second registration, or nothing more."""
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
        return transition(session)  # a late or repeated answer to the first registration
    session = replace(session, registration=RegistrationComplete(line))
    if isinstance(link, RegistrationComplete):
        return transition(session)
    return transition(session, LogNotice(f"registered for run {reply.run} with {part.examples} examples"))


def load_partition(session: Session, task: str, partition: m.Partition, failures: int) -> Transition:
    """Starts to load a partition, in place of the one that is being loaded.

    ``failures`` counts the attempts that have failed before.
    """
    effects = (
        (Cancel(session.partition_state.job),)
        if isinstance(session.partition_state, LoadingPartition)
        else ()
    )
    session, job = with_next_job(session)
    session = replace(session, partition_state=LoadingPartition(job, task, partition, failures))
    return transition(session, *effects, Load(job, task, partition))


def partition_loaded(session: Session, event: PartitionLoaded) -> Transition:
    """Records the loaded partition, and sends the second registration if that waits for it."""
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
    """Tries again to load the partition, up to `MAX_LOAD_ATTEMPTS` times in all.

    After the last attempt the edge stops with exit code 1, after a user's mistake at once with 2.
    """
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
    """Stops the edge with exit code 2, unless a foreign run refuses it."""
    if _is_foreign_run(session, reply.run):
        return transition(session)
    return stop(session, 2, f"refused by run {reply.run}: {reply.reason}: {reply.detail}")
