"""The PURE state machine of one edge: ``step(state, event) -> (state, effects)``.

It knows no broker, torch, clock, thread or randomness, and takes any event in any phase: it ignores an event
that does not fit. ``state`` has the phases, ``events`` what can happen, and ``effects`` what the machine asks
for. How it reacts is in ``registration``, ``admission``, ``rounds``, ``charging``, ``reporting``, ``unmasking`` and
``evaluation``;
``transitions`` joins their results.

>>> edge = Session(Identity("7", device="d1", roles=("train",), tasks=("digits",)))
>>> edge, effects = step(edge, ConnectionEstablished(0.0, session="s1"))
>>> [type(effect.message).__name__ for effect in effects]
['ClientPresence', 'Registration']
"""

from __future__ import annotations

from typing import assert_never

from fl_edge.session import (
    admission,
    charging,
    declining,
    evaluation,
    presence,
    refusal,
    registration,
    reporting,
    rounds,
    unmasking,
)
from fl_edge.session.effects import DeleteUpdate, Effect, LogNotice, SaveUpdate, StageState
from fl_edge.session.events import (
    AggregatorSeen,
    Answered,
    BridgeSeen,
    Charged,
    ConnectionEstablished,
    ConnectionLost,
    ConnectionRefused,
    Event,
    Fetched,
    JobFailed,
    ModelAnnounced,
    ModelEvaluated,
    ModelOverdue,
    PartitionLoaded,
    PresenceSeen,
    RegistrationLeaves,
    Replied,
    ResultSeen,
    RunKeysMade,
    SelectionCleared,
    SelectionSeen,
    StopRequested,
    TimePassed,
    Trained,
    UnmaskingAsked,
    UnmaskingCleared,
)
from fl_edge.session.state import (
    Identity,
    LoadingPartition,
    Offline,
    Session,
    SessionState,
    Stopped,
)
from fl_edge.session.transitions import Transition, stop, then, transition
from fl_shared.errors import INTERRUPTED
from fl_shared.protocol import messages as m
from fl_shared.system.frozen import replace

__all__ = [
    "ConnectionEstablished",
    "Effect",
    "Event",
    "Identity",
    "Session",
    "SessionState",
    "Stopped",
    "due",
    "step",
]


def step(state: SessionState, event: Event) -> Transition:
    """Returns the state after ``event``, and the effects to perform, in this order."""
    if isinstance(state, Stopped):
        return state, ()
    after, effects = _react(state, event)
    staged = tuple(effect for effect in effects if isinstance(effect, StageState))
    others = (effect for effect in effects if not isinstance(effect, StageState))
    return after, (*staged, *_storage_effects(state, after), *others)


def due(state: SessionState) -> float | None:
    """Returns when ``TimePassed`` next changes the state or has effects; ``None`` for never.

    Before it, ``TimePassed`` does nothing.
    """
    if isinstance(state, Stopped):
        return None
    dues = (registration.due(state), reporting.due(state), unmasking.due(state))
    return min((at for at in dues if at is not None), default=None)


def _storage_effects(before: Session, after: SessionState) -> tuple[Effect, ...]:
    """Saves a finished update so that it outlives the process, until it is answered or superseded.

    When the edge stops, the saved update stays.
    """
    if isinstance(after, Stopped):
        return ()  # a restarted edge may still be in time
    previous, now = before.pending_update(), after.pending_update()
    if (previous and previous.update) is (now and now.update):
        return ()
    return (DeleteUpdate() if now is None else SaveUpdate(now),)


def _react(session: Session, event: Event) -> Transition:
    now = event.now
    match event:
        case ConnectionEstablished():
            return registration.connected(session, event)
        case ConnectionLost():
            return transition(replace(session, registration=Offline()))
        case TimePassed():
            return then(
                registration.repeat(session, now),
                lambda s: reporting.repeat(s, now),
                lambda s: unmasking.repeat(s, now),
            )
        case RegistrationLeaves():
            return registration.leaves(session, now)
        case StopRequested(reason=reason):
            return stop(session, INTERRUPTED, "interrupted", told=reason)
        case ConnectionRefused(reason=reason):
            return stop(session, 2, reason, told=reason)
        case AggregatorSeen():
            return presence.aggregator_seen(session, event)
        case BridgeSeen():
            return presence.bridge_seen(session, event)
        case PresenceSeen():
            return presence.presence_seen(session, event)
        case Replied(reply=reply):
            return _replied(session, reply, now)
        case SelectionSeen():
            return then(
                rounds.selection_seen(session, event),
                lambda s: presence.detect_restart(s, event.selected, now),
                lambda s: unmasking.ended(s, event.selected.run, event.selected.round - 1),
                unmasking.work_out,
                lambda s: rounds.start_round(s, now),
            )
        case SelectionCleared():
            return rounds.selection_cleared(session, event)
        case UnmaskingAsked():
            return then(
                unmasking.asked(session, event),
                lambda s: presence.detect_restart(s, event.asked, now),
                unmasking.work_out,
            )
        case UnmaskingCleared():
            return unmasking.ended(session)
        case RunKeysMade():
            return then(registration.run_keys_made(session, event), unmasking.work_out)
        case Answered():
            return unmasking.answered(session, event)
        case ResultSeen():
            return then(
                rounds.result_seen(session, event),
                lambda s: unmasking.ended(s, event.result.run, event.result.round),
                lambda s: charging.withdraw(s, now),
                lambda s: presence.detect_restart(s, event.result, now),
                evaluation.start_evaluation,
            )
        case ModelAnnounced(announced=announced):
            return then(
                transition(_store_announcement(session, announced)),
                lambda s: presence.detect_restart(s, announced, now),
                lambda s: rounds.renew_base(s, now),
                declining.end_if_data_are_wrong,
                lambda s: evaluation.serve_model(s, announced),
                evaluation.start_evaluation,
            )
        case PartitionLoaded():
            return then(
                registration.partition_loaded(session, event),
                unmasking.work_out,
                lambda s: rounds.start_round(s, now),
                evaluation.start_evaluation,
            )
        case ModelOverdue():
            return reporting.report_delay(session, "model")
        case Fetched():
            return then(rounds.fetched(session, event), lambda s: evaluation.fetched(s, event))
        case Trained():
            return then(
                rounds.trained(session, event),
                lambda s: rounds.start_round(s, now),
                lambda s: evaluation.personalized(s, event),
            )
        case Charged():
            return charging.charged(session, event)
        case ModelEvaluated():
            return evaluation.evaluated(session, event)
        case JobFailed():
            if (
                isinstance(session.partition_state, LoadingPartition)
                and session.partition_state.job == event.job
            ):
                return registration.partition_load_failed(session, event)
            return then(rounds.work_failed(session, event), lambda s: evaluation.failed(s, event))
        case _:
            assert_never(event)


def _replied(session: Session, reply: m.Reply, now: float) -> Transition:
    identity, connection = session.identity, session.connection
    if connection is None or (reply.client, reply.session) != (identity.client, connection.session):
        return transition(session)
    match reply:
        case m.Admitted():
            return then(
                admission.admitted(session, reply, now),
                lambda s: reporting.report(s, now),
                unmasking.work_out,
                lambda s: unmasking.report(s, now),
                lambda s: rounds.start_round(s, now),
                lambda s: (
                    evaluation.serve_model(s, _own_announcement(s))
                    if s.membership != session.membership
                    else transition(s)
                ),
                evaluation.start_evaluation,
            )
        case m.Refused():
            return refusal.refused(session, reply, now)
        case m.Accepted():
            return then(
                reporting.accepted(session, reply),
                lambda s: unmasking.accepted(s, reply),
                lambda s: rounds.start_round(s, now),
            )
        case m.Grant():
            return reporting.granted(session, reply, now)
        case m.Rejected():
            return then(reporting.rejected(session, reply), lambda s: rounds.start_round(s, now))
        case m.Limited():
            # What was dropped is repeated, like everything that is not answered.
            notice = f"the aggregator drops some of this edge's messages: {reply.reason}: {reply.detail}"
            return transition(session, LogNotice.of_no_data(notice, "warning"))
        case _:
            return transition(session)


def _store_announcement(session: Session, announced: m.ModelAnnouncement) -> Session:
    messages = rounds.retained_messages_of(session, announced)
    if messages.announced is not None and messages.announced.version > announced.version:
        return session
    return rounds.store_retained_messages(session, replace(messages, announced=announced))


def _own_announcement(session: Session) -> m.ModelAnnouncement | None:
    messages = session.own_retained_messages()
    return messages.announced if messages else None
