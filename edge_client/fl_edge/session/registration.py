"""Registers the edge, so that a run knows it together with its loaded partition (protocol, section 4)."""

from __future__ import annotations

from fl_edge.session.declining import (
    RETRY_DELAY,
    decline_after,
    send_decline,
    with_registration,
)
from fl_edge.session.effects import Cancel, Load, LogNotice, Send
from fl_edge.session.events import (
    ConnectionEstablished,
    JobFailed,
    PartitionLoaded,
    RunKeysMade,
)
from fl_edge.session.masking import MaskedRun
from fl_edge.session.state import (
    ActiveConnection,
    AwaitingPartition,
    AwaitingPlace,
    Confirming,
    Declined,
    LoadedPartition,
    Loading,
    LoadingPartition,
    NoPartition,
    Registering,
    Session,
)
from fl_edge.session.transitions import (
    Transition,
    retry_delay,
    then,
    transition,
    with_next_job,
)
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.task_spec import is_survey
from fl_shared.system.frozen import replace
from fl_shared.system.text import names_text, shortened
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

    The edge must be admitted, and its partition loaded. In a masked run it waits for the edge's keys of the run.
    """
    connection, state, membership = session.connection, session.partition_state, session.membership
    assert connection is not None
    assert membership is not None
    assert isinstance(state, LoadedPartition)
    keys = session.masked_run.keys if session.masked_run and membership.masked else None
    if keys is None and membership.masked and session.identity.edges is None:
        return transition(replace(session, registration=Loading(connection)))
    session, send = with_registration(
        session,
        run=membership.run,
        incarnation=membership.incarnation,
        manifest=state.manifest,
        examples=told_examples(session, state),
        metrics=state.metrics,
        abilities=state.abilities,
        local_part=shortened(names_text(state.local), m.MAX_LOCAL_PART) or None,
        keys=keys,
        fresh=session.own_state.current is None or session.own_state.current.run != membership.run,
    )
    due = now + retry_delay(session.identity.client, attempt, RETRY_DELAY)
    return transition(replace(session, registration=Confirming(connection, attempt, due)), send)


def told_examples(session: Session, state: LoadedPartition) -> int:
    """Returns how many examples the edge says it has: some, if it may say no more."""
    return min(1, state.examples) if session.is_discreet else state.examples


def examples_text(state: LoadedPartition) -> str:
    """Returns how many examples the edge has, for its own log."""
    return f"{state.examples} example{'s' * (state.examples != 1)}"


def run_keys_made(session: Session, event: RunKeysMade) -> Transition:
    """Keeps the public keys, and sends the second registration if that waits for them."""
    membership, kept = session.membership, session.masked_run
    if membership is None or membership.run != event.run:
        return transition(session)
    if kept is None or (kept.run, kept.keys) != (event.run, event.keys):
        session = replace(session, masked_run=MaskedRun(event.run, event.keys))
    if isinstance(session.registration, Loading) and isinstance(session.partition_state, LoadedPartition):
        return confirm(session, event.now, 0)
    return transition(session)


def due(session: Session) -> float | None:
    """Returns when `repeat` sends something, or ``None`` if it waits for something else than time."""
    phase = session.registration
    if isinstance(phase, Registering | AwaitingPartition | AwaitingPlace | Confirming | Declined):
        return phase.due
    return None


def leaves(session: Session, now: float) -> Transition:
    """Sets the time of the repetition anew, since the registration has waited for its turn until now."""
    phase = session.registration
    if due(session) is None or not isinstance(phase, Registering | Confirming | Declined):
        return transition(session)
    again = now + retry_delay(session.identity.client, phase.attempt, RETRY_DELAY)
    return transition(replace(session, registration=replace(phase, due=again)))


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
        event.values,
        event.local,
    )
    data = "its own data" if state.partition.scheme == "own" else f"partition {state.partition.index}"
    text = f": {examples_text(loaded)}, {event.holdout} held out"
    notice = LogNotice(f"loaded {data}{' for a survey' if is_survey(state.task) else text}")
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
        return decline_after(session, membership, event)
    notice = LogNotice(f"cannot load the data, trying again: {event.detail}", "warning")
    return then(
        transition(session, notice),
        lambda s: load_partition(s, state.task, state.partition, state.failures + 1, state.run_weights),
    )
