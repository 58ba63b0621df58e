"""Registers the edge, so that a run knows it together with its loaded partition (protocol, section 4)."""

from __future__ import annotations

from fl_edge.session import own_state
from fl_edge.session.declining import (
    RETRY_DELAY,
    decline,
    has_declined,
    send_decline,
    with_registration,
)
from fl_edge.session.effects import Cancel, Load, LogNotice, Send
from fl_edge.session.events import (
    ConnectionEstablished,
    JobFailed,
    PartitionLoaded,
)
from fl_edge.session.state import (
    ActiveConnection,
    AwaitingPartition,
    AwaitingPlace,
    Confirming,
    Declined,
    LoadedPartition,
    Loading,
    LoadingPartition,
    Membership,
    NoPartition,
    Registering,
    RegistrationComplete,
    Session,
)
from fl_edge.session.transitions import (
    Transition,
    cancel_evaluation,
    cancel_work,
    retry_delay,
    then,
    transition,
    with_next_job,
)
from fl_edge.session.work import Idle, Reporting
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.task_spec import task_name
from fl_shared.system.frozen import replace
from fl_shared.tensors.manifest import Manifest

PARTITION_RETRY_DELAY = 10.0
"""Seconds, or up to twice as many, before an edge without a partition or a place first asks for it again."""
MAX_LOAD_ATTEMPTS = 3
"""Attempts to load a partition before the edge declines; one may fail because a worker died."""


def connected(session: Session, event: ConnectionEstablished) -> Transition:
    """Begins to register on a new connection: publishes the birth, and sends the first registration."""
    connection = ActiveConnection(event.session, event.maximum_packet_size)
    # What the last connection showed of the aggregator may have changed since.
    registering = replace(session, registration=Registering(connection, 0, event.now), aggregator=None)
    return then(publish_presence(registering), lambda s: register(s, event.now, 0))


def publish_presence(session: Session) -> Transition:
    """Publishes the edge's birth, which the broker retains."""
    client = session.identity.client
    assert session.connection is not None
    birth = m.ClientPresence(client=client, state="online", session=session.connection.session)
    return transition(session, Send(t.PresenceTopic(client), birth, retain=True))


def register(session: Session, now: float, attempt: int) -> Transition:
    """Sends the first registration, which names no run, and sets the time of its repetition."""
    connection = session.connection
    assert connection is not None
    session, send = with_registration(session)
    due = now + retry_delay(session.identity.client, attempt, RETRY_DELAY)
    return transition(replace(session, registration=Registering(connection, attempt, due)), send)


def wait_to_register(
    session: Session, phase: type[AwaitingPartition] | type[AwaitingPlace], now: float, attempt: int
) -> Transition:
    """Lets the edge wait in ``phase``, and sets the time at which it registers again."""
    assert session.connection is not None
    due = now + retry_delay(session.identity.client, attempt, PARTITION_RETRY_DELAY)
    return transition(replace(session, registration=phase(session.connection, attempt, due)))


def confirm(session: Session, now: float, attempt: int) -> Transition:
    """Sends the second registration: the digest of the manifest, the number of training examples, and the metrics.

    The edge must be admitted, and its partition loaded.
    """
    connection, state, membership = session.connection, session.partition_state, session.membership
    assert connection is not None
    assert membership is not None
    assert isinstance(state, LoadedPartition)
    session, send = with_registration(
        session,
        run=membership.run,
        incarnation=membership.incarnation,
        manifest=state.manifest,
        examples=state.examples,
        metrics=state.metrics,
        abilities=state.abilities,
        fresh=session.own_state.current is None or session.own_state.current.run != membership.run,
    )
    due = now + retry_delay(session.identity.client, attempt, RETRY_DELAY)
    return transition(replace(session, registration=Confirming(connection, attempt, due)), send)


def due(session: Session) -> float | None:
    """Returns when `repeat` sends something, or ``None`` if it waits for something else than time."""
    phase = session.registration
    if isinstance(phase, Registering | AwaitingPartition | AwaitingPlace | Confirming | Declined):
        return phase.due
    return None


def repeat(session: Session, now: float) -> Transition:
    """Repeats the registration if that is due."""
    at = due(session)
    if at is None or now < at:
        return transition(session)
    match session.registration:
        case Registering(attempt=attempt):
            return register(session, now, attempt + 1)
        case Confirming(attempt=attempt):
            return confirm(session, now, attempt + 1)
        case Declined(attempt=attempt):
            return send_decline(session, now, attempt + 1)
        case AwaitingPartition() | AwaitingPlace() as phase:
            again = phase.attempt + 1
            return then(register(session, now, 0), lambda s: wait_to_register(s, type(phase), now, again))
        case _:
            return transition(session)


def is_foreign_run(session: Session, run: str) -> bool:
    """Whether the edge belongs to another run, and has not seen the birth of this one (protocol, 4.3)."""
    membership, aggregator = session.membership, session.aggregator
    return membership is not None and run != membership.run and (aggregator is None or aggregator.run != run)


def admitted(session: Session, reply: m.Admitted, now: float) -> Transition:
    """Makes the edge a member of the run that admits it, and continues its registration and its work.

    A foreign run and an earlier incarnation are ignored, and a run that the edge has declined. If the edge
    cannot or must not train the run's task, it declines.
    """
    membership, identity = session.membership, session.identity
    if is_foreign_run(session, reply.run) or has_declined(session, reply):
        return transition(session)
    if membership and reply.run == membership.run and reply.incarnation < membership.incarnation:
        return transition(session)
    if not identity.has_task(reply.task):
        if ":" in (name := task_name(reply.task)):
            why = f"it is a class, which only the edge's user may name: --task {name}"
        else:
            why = "it has: " + ", ".join(
                (*identity.tasks, *(f"{family}N" for family in identity.task_prefixes))
            )
        return decline(session, reply, f"no task {reply.task!r} here; {why}", now)
    if identity.requires_other_task(reply.task):
        return decline(session, reply, f"its --task is {identity.task!r}, not {reply.task!r}", now)
    step = transition(session)
    if membership is None or reply.run != membership.run:
        step = then(
            step,
            cancel_work,
            cancel_evaluation,
            lambda s: transition(replace(s, last_handled_round=-1, last_answered_round=-1)),
        )
    return then(
        step,
        lambda s: transition(
            replace(s, membership=Membership(reply.run, reply.incarnation, reply.task, reply.partition))
        ),
        lambda s: _resume_restored_update(s, reply, now),
        lambda s: _end_finished_round(s, reply),
        lambda s: own_state.settle_by_admission(s, membership, reply),
        lambda s: _forget_lost_rounds(s, reply),
        lambda s: _continue_registration(s, session, reply, now),
    )


def _resume_restored_update(session: Session, reply: m.Admitted, now: float) -> Transition:
    """Reports the update that an earlier process of this edge finished, if its run has admitted the edge.

    For another run the update is useless, and is dropped.
    """
    pending = session.restored_update
    if pending is None:
        return transition(session)
    session = replace(session, restored_update=None)
    if pending.selected.run != reply.run or not session.identity.trains:
        return transition(session)
    number = pending.selected.round
    notice = LogNotice(f"round {number}: its update was finished before the restart")
    work = Reporting(pending.selected, pending.update, None, 0, now)
    return transition(
        replace(session, work=work, last_handled_round=max(session.last_handled_round, number - 1)), notice
    )


def _end_finished_round(session: Session, reply: m.Admitted) -> Transition:
    """Ends the work of round ``finished_round``: the aggregator has its update, or takes none any more.

    The update is neither sent nor trained again.
    """
    if reply.finished_round is None:
        return transition(session)
    session = session.answered(reply.finished_round)
    if isinstance(session.work, Idle) or session.work.selected.round != reply.finished_round:
        return transition(session)
    notice = LogNotice(f"round {reply.finished_round}: the aggregator needs no update of this edge any more")
    return then(cancel_work(session), lambda s: transition(s, notice))


def _forget_lost_rounds(session: Session, reply: m.Admitted) -> Transition:
    """Takes part again in rounds that the aggregator has lost, for example with its disk's cache (reliability, 1.11).

    Otherwise the edge would take a repeated round for one that it has had.
    """
    newest = reply.newest_round
    if newest is None:
        return transition(session)
    last = newest - 1 if reply.awaited else newest
    session = replace(
        session,
        last_handled_round=min(session.last_handled_round, last),
        last_answered_round=min(session.last_answered_round, last),
    )
    if isinstance(session.work, Idle) or session.work.selected.round <= newest:
        return transition(session)
    number = session.work.selected.round
    notice = LogNotice(
        f"round {number}: the aggregator no longer knows this round; its update is dropped", "warning"
    )
    return then(cancel_work(session), lambda s: transition(s, notice))


def _continue_registration(session: Session, before: Session, reply: m.Admitted, now: float) -> Transition:
    """Does what follows an admission: loading, the second registration, or nothing more."""
    connection, state, partition, previous_phase = (
        session.connection,
        session.partition_state,
        reply.partition,
        before.registration,
    )
    assert connection is not None
    prefix = f"admitted to run {reply.run} ({reply.task})"
    if not session.identity.trains:
        session = replace(session, registration=RegistrationComplete(connection))
        return (
            transition(session)
            if isinstance(previous_phase, RegistrationComplete)
            else transition(session, LogNotice(prefix))
        )
    if partition is None:
        if isinstance(previous_phase, AwaitingPartition):
            return wait_to_register(session, AwaitingPartition, now, previous_phase.attempt)
        notice = LogNotice(f"{prefix}; data will be assigned when the run starts")
        return then(transition(session, notice), lambda s: wait_to_register(s, AwaitingPartition, now, 0))
    if isinstance(state, NoPartition) or (state.task, state.partition) != (reply.task, partition):
        notice = LogNotice(f"{prefix} with partition {partition.index} of {partition.count}")
        return then(
            transition(session, notice),
            lambda s: load_partition(s, reply.task, partition, 0),
            lambda s: transition(replace(s, registration=Loading(connection))),
        )
    if isinstance(state, LoadingPartition):
        return transition(replace(session, registration=Loading(connection)))
    if before.membership != session.membership or not isinstance(
        previous_phase, Confirming | RegistrationComplete
    ):
        return confirm(session, now, 0)
    if isinstance(previous_phase, Confirming) and reply.examples != state.examples:
        return transition(session)  # a late or repeated answer to the first registration
    session = replace(session, registration=RegistrationComplete(connection))
    if isinstance(previous_phase, RegistrationComplete):
        return transition(session)
    return transition(session, LogNotice(f"registered for run {reply.run} with {state.examples} examples"))


def load_partition(
    session: Session, task: str, partition: m.Partition, failures: int, run_weights: Manifest | None = None
) -> Transition:
    """Starts to load a partition, in place of the one that is being loaded.

    ``failures`` counts the attempts that have failed before. ``run_weights``: to compare those of the edge with.
    """
    effects = (
        (Cancel(session.partition_state.job),)
        if isinstance(session.partition_state, LoadingPartition)
        else ()
    )
    session, job = with_next_job(session)
    session = replace(session, partition_state=LoadingPartition(job, task, partition, failures, run_weights))
    return transition(session, *effects, Load(job, task, partition, run_weights))


def partition_loaded(session: Session, event: PartitionLoaded) -> Transition:
    """Records the loaded partition, and sends the second registration if that waits for it."""
    state = session.partition_state
    if not isinstance(state, LoadingPartition) or state.job != event.job:
        return transition(session)
    loaded = LoadedPartition(
        state.task,
        state.partition,
        event.examples,
        event.holdout,
        event.manifest,
        event.metrics,
        event.abilities,
    )
    notice = LogNotice(
        f"loaded partition {state.partition.index}: {event.examples} examples, {event.holdout} held out"
    )
    session = replace(session, partition_state=loaded)
    if isinstance(session.registration, Loading):
        return then(transition(session, notice), lambda s: confirm(s, event.now, 0))
    return transition(session, notice)


def partition_load_failed(session: Session, event: JobFailed) -> Transition:
    """Tries again to load the partition, up to `MAX_LOAD_ATTEMPTS` times in all.

    After the last attempt the edge declines, after a user's mistake at once.
    """
    state, membership = session.partition_state, session.membership
    assert isinstance(state, LoadingPartition)
    session = replace(session, partition_state=NoPartition())
    if membership is not None and (event.user_error or state.failures + 1 >= MAX_LOAD_ATTEMPTS):
        return decline(session, membership, event.detail, event.now, event.fault)
    notice = LogNotice(f"cannot load the data, trying again: {event.detail}", "warning")
    return then(
        transition(session, notice),
        lambda s: load_partition(s, state.task, state.partition, state.failures + 1, state.run_weights),
    )
