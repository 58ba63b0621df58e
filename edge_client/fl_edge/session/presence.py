"""What the edge does when the aggregator or its own presence is seen online or offline (protocol, section 4)."""

from __future__ import annotations

from fl_edge.session.effects import LogNotice
from fl_edge.session.events import AggregatorSeen, BridgeSeen, PresenceSeen
from fl_edge.session.registration import publish_presence, register
from fl_edge.session.state import Declined, Offline, Registering, Session
from fl_edge.session.transitions import Transition, then, transition
from fl_shared.protocol import messages as m
from fl_shared.system.frozen import replace

UNSEALED = (
    "this edge does not seal, but run {} takes only sealed messages: start the edge with --seal and --kit"
)


def aggregator_seen(session: Session, event: AggregatorSeen) -> Transition:
    """Records the aggregator's presence, and registers again if that shows a start which is not yet known.

    A member of a run ignores the birth of another one as long as the run's aggregator is online: one of the two ends,
    and if it is this one, the other's birth is published again. It warns of an aggregator that will drop what this edge
    sends.
    """
    presence, previous = event.presence, session.aggregator
    is_new = previous is None or _incarnation_of(previous) != _incarnation_of(presence)
    step = _aggregator_seen(session, event)
    if presence.state == "online" and presence.sealed and not session.identity.seals and is_new:
        notice = LogNotice.of_no_data(UNSEALED.format(presence.run), "error")
        return then(step, lambda s: transition(s, notice) if s.aggregator == presence else transition(s))
    return step


def _aggregator_seen(session: Session, event: AggregatorSeen) -> Transition:
    presence, previous = event.presence, session.aggregator
    if presence.state == "offline":
        # The will of a session that is not the newest means nothing.
        if previous is None or previous.session == presence.session:
            return transition(replace(session, aggregator=presence))
        return transition(session)
    membership = session.membership
    if (
        previous is not None
        and previous.state == "online"
        and membership is not None
        and membership.run == previous.run != presence.run
    ):
        return transition(session)
    has_restarted = (
        previous is None
        or _incarnation_of(previous) != _incarnation_of(presence)
        or previous.state == "offline"
    )
    session = replace(session, aggregator=presence)
    match session.registration:
        case Offline():
            return transition(session)
        case Registering() if event.retained:
            # The aggregator was online before we registered, and will answer.
            return transition(session)
        case Declined(run=run, incarnation=incarnation) if previous is None and event.retained:
            declined = (run, incarnation) == (presence.run, presence.incarnation)
            return transition(session) if declined else register(session, event.now, 0)
        case _ if has_restarted and not (previous is None and event.retained and session.recipient()):
            return register(session, event.now, 0)
        case _:
            return transition(session)


def _incarnation_of(presence: m.AggregatorPresence) -> tuple[str, str, int]:
    return presence.session, presence.run, presence.incarnation


def detect_restart(session: Session, message: m.Scoped, now: float) -> Transition:
    """Registers again after a message of the edge's run from a later incarnation, whose birth was missed."""
    membership = session.membership
    if (
        membership
        and message.run == membership.run
        and message.incarnation > membership.incarnation
        and session.recipient()
    ):
        return register(session, now, 0)
    return transition(session)


def bridge_seen(session: Session, event: BridgeSeen) -> Transition:
    """Registers again when the bridge of the edge's broker is back: the aggregator has taken the edge for lost."""
    is_back = event.connected and session.bridge_lost
    session = replace(session, bridge_lost=not event.connected)
    return register(session, event.now, 0) if is_back and session.connection else transition(session)


def presence_seen(session: Session, event: PresenceSeen) -> Transition:
    """Publishes the birth again if the edge's presence was cleared, or overwritten as offline.

    It does not contradict another session that is online, since the two would go on forever.
    """
    if session.connection is None:
        return transition(session)
    presence = event.presence
    if presence is None or (presence.state == "offline" and presence.client == session.identity.client):
        step = publish_presence(session)
        if presence is not None and presence.session == session.connection.session:
            # Not an old will: the message declares this very session offline, and the aggregator believes it.
            return then(step, lambda s: register(s, event.now, 0))
        return step
    return transition(session)
