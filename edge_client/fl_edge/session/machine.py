"""The PURE machine of one edge: ``step(state, event) -> (state, effects)``.

It knows no broker, torch, clock, thread or chance, and takes any event in any phase: what does not fit is
ignored. Where to read on: ``phases`` (what it can be doing), ``events`` (what happens to it), ``effects``
(what it asks for), and how it acts: ``registration``, ``rounds``, ``reports``, ``appraisals``; ``steps`` puts
them together.

>>> edge = Session(Identity("7", device="d1", roles=("train",), tasks=("digits",)))
>>> edge, effects = step(edge, Connected(0.0, session="s1"))
>>> [type(effect.message).__name__ for effect in effects]
['ClientPresence', 'Registration']
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from fl_edge.session import evaluation, registration, reporting, rounds
from fl_edge.session.effects import Effect, ForgetUpdate, KeepUpdate, Say
from fl_edge.session.events import (
    AggregatorSeen,
    Barred,
    Connected,
    ConnectionLost,
    Evaluated,
    Event,
    Fetched,
    JobFailed,
    ModelAnnounced,
    PartLoaded,
    PresenceSeen,
    Replied,
    ResultSeen,
    SelectionCleared,
    SelectionSeen,
    StopRequested,
    TimePassed,
    Trained,
)
from fl_edge.session.state import (
    AwaitingPart,
    Confirming,
    Identity,
    LoadingPart,
    Offline,
    Registering,
    Reporting,
    Session,
    State,
    Stopped,
    Unable,
)
from fl_edge.session.transitions import Step, stay, stop, then
from fl_shared.protocol import messages as m

__all__ = ["Connected", "Effect", "Event", "Identity", "Session", "State", "Stopped", "next_due", "step"]


def step(state: State, event: Event) -> Step:
    """What becomes of an edge when ``event`` happens, and what is to be done, in this order."""
    if isinstance(state, Stopped):
        return state, ()
    after, effects = _react(state, event)
    return after, (*_kept(state, after), *effects)


def _kept(before: Session, after: State) -> tuple[Effect, ...]:
    """What is finished outlives the process until it is answered or superseded, and not longer."""
    if isinstance(after, Stopped):
        return ()  # when it is started again it may be in time still
    was, now = before.finished(), after.finished()
    if (was and was.update) is (now and now.update):
        return ()
    return (ForgetUpdate() if now is None else KeepUpdate(now),)


def _react(session: Session, event: Event) -> Step:
    now = event.now
    match event:
        case Connected():
            return registration.connected(session, event)
        case ConnectionLost():
            return stay(replace(session, link=Offline()))
        case TimePassed():
            return then(
                registration.repeat(session, now),
                lambda s: reporting.repeat(s, now),
            )
        case StopRequested():
            return stop(session, 130, "interrupted")
        case Barred(reason=reason):
            return stop(session, 2, reason)
        case AggregatorSeen():
            return registration.aggregator_seen(session, event)
        case PresenceSeen():
            return registration.presence_seen(session, event)
        case Replied(reply=reply):
            return _replied(session, reply, now)
        case SelectionSeen():
            return then(
                rounds.selection_seen(session, event),
                lambda s: registration.heard_from(s, event.selected, now),
                lambda s: rounds.take_up(s, now),
            )
        case SelectionCleared():
            return rounds.selection_cleared(session, event)
        case ResultSeen():
            return then(
                rounds.result_seen(session, event),
                lambda s: registration.heard_from(s, event.result, now),
            )
        case ModelAnnounced(announced=announced):
            return then(
                stay(_post_model(session, announced)),
                lambda s: registration.heard_from(s, announced, now),
                lambda s: evaluation.offer(s, announced),
                evaluation.appraise,
            )
        case PartLoaded():
            return then(
                registration.part_loaded(session, event),
                lambda s: rounds.take_up(s, now),
                evaluation.appraise,
            )
        case Fetched():
            return then(rounds.fetched(session, event), lambda s: evaluation.fetched(s, event))
        case Trained():
            return then(rounds.trained(session, event), lambda s: rounds.take_up(s, now))
        case Evaluated():
            return evaluation.evaluated(session, event)
        case JobFailed():
            if isinstance(session.part, LoadingPart) and session.part.job == event.job:
                return registration.part_failed(session, event)
            return then(rounds.work_failed(session, event), lambda s: evaluation.failed(s, event))
        case _:
            assert_never(event)


def _replied(session: Session, reply: m.Reply, now: float) -> Step:
    who, line = session.identity, session.line
    if line is None or (reply.client, reply.session) != (who.client, line.session):
        return stay(session)
    match reply:
        case m.Admitted():
            return then(
                registration.admitted(session, reply, now),
                lambda s: reporting.report(s, now),
                lambda s: rounds.take_up(s, now),
                lambda s: evaluation.offer(s, _announced(s)) if s.member != session.member else stay(s),
                evaluation.appraise,
            )
        case m.Refused():
            return registration.refused(session, reply)
        case m.Accepted():
            return then(reporting.accepted(session, reply), lambda s: rounds.take_up(s, now))
        case m.Grant():
            return reporting.granted(session, reply, now)
        case m.Rejected():
            return then(reporting.rejected(session, reply), lambda s: rounds.take_up(s, now))
        case m.Limited():
            # It is repeated like all that is not answered.
            said = f"the aggregator drops some of this edge's messages: {reply.reason}: {reply.detail}"
            return stay(session, Say(said, "warning"))
        case _:
            return stay(session)


def _post_model(session: Session, announced: m.ModelAnnouncement) -> Session:
    post = rounds.posted_by(session, announced)
    if post.announced is not None and post.announced.version > announced.version:
        return session
    return rounds.keep_post(session, replace(post, announced=announced))


def _announced(session: Session) -> m.ModelAnnouncement | None:
    post = session.own_post()
    return post.announced if post else None


def next_due(state: State) -> float | None:
    """When ``TimePassed`` has to be told next, or null: nothing waits for time to pass."""
    if isinstance(state, Stopped) or isinstance(state.link, Offline):
        return None
    dues = [state.link.due] if isinstance(state.link, Registering | AwaitingPart | Confirming) else []
    gone = state.aggregator is not None and state.aggregator.state == "offline"
    if isinstance(state.work, Reporting | Unable) and state.admitted_as() and not gone:
        dues.append(state.work.due)
    return min(dues, default=None)
