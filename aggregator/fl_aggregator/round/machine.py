"""The round as a pure state machine: ``step`` makes every decision about how a run goes.

Selecting → Collecting → Aggregating → (committed | abandoned) → Selecting → … → Finished | Failed | Stopped
With masked updates: Collecting → Agreeing → Unmasking → Aggregating.
In an asynchronous run, Buffering takes the place of Collecting and Aggregating after round 0, until the last version.
(a resume leads from Failed and Stopped back to where the run was)

The same state and event always give the same state and effects. Whenever the state changes, the first effect
is ``Record(event)``; replaying the recorded events through ``step`` gives the state back, and no decision is
ever taken twice. ``effects`` says what the order of the effects promises.
"""

from __future__ import annotations

import math
from typing import Final, assert_never

from fl_aggregator.round import (
    agreeing,
    buffering,
    closing,
    drawing,
    evaluation,
    ordering,
    pausing,
    registration,
    revoking,
    selecting,
    unmasking,
    updates,
)
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.answers import reply_to
from fl_aggregator.round.closing import abandon, collect, commit
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.phases import (
    Agreeing,
    Buffering,
    Collecting,
    Evaluating,
    Selecting,
    Stopped,
    Unmasking,
    collected_round,
)
from fl_aggregator.round.selecting import select
from fl_aggregator.round.state import Run
from fl_aggregator.round.two_machines import heard
from fl_shared.system.frozen import replace
from fl_shared.system.text import names_text

MACHINE_VERSION: Final = 16
"""Increased whenever the same state and event give another result, or the state has another form: a journal can only
be replayed by the version that wrote it."""


def step(state: Run, event: on.Event) -> Transition:
    """Returns the state after ``event``, and the effects to perform, in this order."""
    if state.ended and not isinstance(event, on.Resumed):
        return _step_after_end(state, event)
    after, effects = _react(state, event)
    if after.roster is not state.roster and isinstance(after.phase, Collecting):
        client = event.client if isinstance(event, on.Registered | on.EdgeLost) else None
        after = closing.follow_roster(after, after.phase, state.roster, client)
    after, further_effects = (
        _advance(after, event.now) if after.paused is None else _complete(after, event.now)
    )
    effects += further_effects
    if after == state:
        return state, effects
    return after, (do.Record(event), *effects)


def due(state: Run) -> float | None:
    """Returns the run time at which ``TimePassed`` next changes the state or has effects; ``None`` for never.

    Before it, ``TimePassed`` does nothing. ``state`` is one that `step` has returned, so that what could be done at
    once is done.
    """
    if state.ended or state.paused is not None:
        return None
    at = evaluation.due(state)
    match state.phase:
        case Selecting() as phase:
            at = min(at, selecting.due(state, phase))
        case Collecting() as phase:
            at = min(at, closing.due(state, phase))
        case Agreeing(deadline=deadline) | Unmasking(deadline=deadline):
            at = min(at, deadline)
        case Buffering() as phase:
            at = min(at, buffering.due(state, phase))
        case _:
            pass
    return None if at == math.inf else at


def _react(state: Run, event: on.Event) -> Transition:
    match event:
        case on.Started(now=now):
            return _start(state, now)
        case on.Resumed():
            return closing.resume(state, event), ()
        case on.UpdatesLost():
            return _abandon_for_lost_updates(state, event)
        case on.Disconnected(now=now):
            return replace(state, roster=state.roster.undo_recent_losses(now)), ()
        case on.Reconnected(now=now):
            state = replace(state, roster=state.roster.mark_all_unconfirmed(now))
            return closing.with_time_to_unmask(state, now), ()
        case on.Registered():
            return registration.register(state, event)
        case on.EdgeLost(now=now, client=client, session=session, reason=reason):
            return replace(state, roster=state.roster.mark_lost(client, session, now, reason)), ()
        case on.BridgeLost(now=now, broker=broker):
            return replace(state, roster=state.roster.mark_bridge_lost(broker, now)), ()
        case on.KitsRevoked():
            return revoking.revoke(state, event)
        case (
            on.UpdateOffered(update=update, payload=payload)
            | on.UpdateArrived(update=update, payload=payload)
        ):
            decision = updates.decide(state, update)
            if decision is None:
                effect_type = do.Receive if isinstance(event, on.UpdateOffered) else do.StoreUpdate
                return state, (effect_type(update, payload),)
            state, effects = updates.drop_if_rejected(state, update.client, update.round, decision)
            return state, (reply_to(update, decision), *effects)
        case on.UpdateStored(now=now, update=update):
            return updates.accept(heard(state, update.client, update.session), update, now)
        case on.UpdateInvalid():
            rejection = _rejection(event)
            state, effects = updates.drop_if_rejected(state, event.client, event.round, rejection)
            return state, (do.SendReply(event.client, event.session, rejection), *effects)
        case on.TrainingFailureReported(client=client, round=number, detail=detail):
            return updates.drop_from_round(state, client, number, f"failed: {detail}")
        case on.Agreed():
            return agreeing.agree(state, event)
        case on.Declined():
            declined = agreeing.decline if isinstance(state.phase, Agreeing) else unmasking.decline
            return declined(state, event)
        case on.SharesArrived():
            return unmasking.take(state, event)
        case on.SharesKept():
            return unmasking.keep(state, event)
        case on.UnmaskFailed():
            return unmasking.fail(state, event)
        case on.ModelCreated():
            if isinstance(state.phase, Buffering):
                return buffering.commit(state, state.phase, event)
            return commit(state, event)
        case on.Evaluated():
            return evaluation.receive_report(state, event), ()
        case on.RoundOrdered():
            return ordering.ordered(state, event)
        case on.OrderEnded():
            return ordering.ended(state, event)
        case on.VersionReceived():
            return ordering.received(state, event)
        case on.Drawn():
            return drawing.drawn(state, event)
        case on.TimePassed():
            return state, ()
        case on.StopRequested():
            return pausing.stop(state, event)
        case on.PauseRequested():
            return pausing.pause(state, event)
        case on.UnpauseRequested():
            return pausing.unpause(state, event)
        case _:
            assert_never(event)


def _step_after_end(state: Run, event: on.Event) -> Transition:
    """Answers edges that stay after the end of the run or repeat a message; the state does not change."""
    match event:
        case on.Registered():
            return state, registration.register_after_the_end(state, event)
        case (
            on.UpdateOffered(update=update) | on.UpdateArrived(update=update) | on.UpdateStored(update=update)
        ):
            decision = updates.decide(state, update)
            if decision is None or (isinstance(state.phase, Stopped) and _is_unknown_round(decision)):
                return state, ()  # the open round may be resumed: the edge keeps its update
            return state, (reply_to(update, decision),)
        case on.UpdateInvalid():
            return state, (do.SendReply(event.client, event.session, _rejection(event)),)
        case on.StopRequested() | on.PauseRequested() | on.UnpauseRequested():
            obeyed = isinstance(event, on.StopRequested)
            return state, pausing.answer(event, accepted=obeyed, detail=f"has ended: {state.phase.name}")
        case _:
            return state, ()


def _is_unknown_round(decision: do.Accept | do.Reject) -> bool:
    return isinstance(decision, do.Reject) and decision.reason == "no-round"


def _rejection(event: on.UpdateInvalid) -> do.Reject:
    return do.Reject(event.round, event.digest, event.reason, event.detail)


def _start(state: Run, now: float) -> Transition:
    if not isinstance(state.phase, Selecting) or state.begun:
        return state, ()
    begins = now if state.settings.look is None else now + state.settings.look.hold
    state = replace(state, phase=replace(state.phase, since=begins, not_before=begins))
    if state.model is None:
        return state, ()
    return state, (do.PublishModel(0, state.model, None),)


def _abandon_for_lost_updates(state: Run, event: on.UpdatesLost) -> Transition:
    """Abandons the open round, because accepted updates are lost.

    Their edges have deleted their copies, so the round cannot be completed as it was.
    """
    if isinstance(state.phase, Buffering) and event.clients:
        return buffering.abandon(state, state.phase, event.now, _lost_text(event))
    collected = collected_round(state.phase)
    if collected is None or collected.round != event.round or not event.clients:
        return state, ()
    return abandon(state, collected, event.now, _lost_text(event))


def _lost_text(event: on.UpdatesLost) -> str:
    return f"accepted updates were lost when the aggregator stopped: {names_text(event.clients, 5)}"


def _complete(state: Run, now: float) -> Transition:
    """In a pause, does what is complete without any more of the edges: see `pausing`."""
    if state.ended:
        return state, ()
    state, effects = evaluation.advance(state, now)
    match state.phase:
        case Collecting() as phase if len(phase.updates) >= phase.target:
            state, further_effects = collect(state, phase, now)
        case Agreeing() as phase:
            state, further_effects = agreeing.advance(state, phase, now)
        case Unmasking() as phase:
            state, further_effects = unmasking.advance(state, phase, now)
        case _:
            further_effects = ()
    return state, effects + further_effects


def _advance(state: Run, now: float) -> Transition:
    """Does what is due: closes evaluations, opens, closes or abandons a round, ends the run."""
    if state.ended:
        return state, ()
    state, effects = evaluation.advance(state, now)
    match state.phase:
        case Selecting() | Evaluating():
            state, further_effects = select(state, state.phase, now)
        case Collecting():
            state, further_effects = collect(state, state.phase, now)
        case Agreeing():
            state, further_effects = agreeing.advance(state, state.phase, now)
        case Unmasking():
            state, further_effects = unmasking.advance(state, state.phase, now)
        case Buffering():
            state, further_effects = buffering.advance(state, state.phase, now)
            if isinstance(state.phase, Selecting):  # there is nothing left to collect
                state, ending = select(state, state.phase, now)
                further_effects += ending
        case _:
            further_effects = ()
    return state, effects + further_effects
