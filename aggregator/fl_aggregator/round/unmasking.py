"""A masked round whose set is signed: its members open their shares, with which the sum is unmasked. Pure.

If the sum cannot be unmasked, because some shares are wrong, it is tried again with those of more members, until the
deadline, or until no member is left that could give them. Who is found to have sent wrong ones twice takes no more part
in the run.
"""

from __future__ import annotations

from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.closing import abandon, average_of, blame
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.phases import Aggregating, Unmasking, unmasking_of
from fl_aggregator.round.state import Run
from fl_aggregator.round.summary import declined_text
from fl_shared.system.frozen import replace


def take(state: Run, event: on.SharesArrived) -> Transition:
    """Has a member's shares kept, or repeats the answer."""
    phase = unmasking_of(state.phase)
    if phase is None or phase.round != event.round or not _is_member(phase, event.client):
        return state, ()
    if event.client in phase.opened:
        return state, (do.SendReply(event.client, event.session, do.Accept(event.round, event.digest)),)
    return state, (do.KeepShares(event.client, event.session, event.round, event.digest, event.payload),)


def keep(state: Run, event: on.SharesKept) -> Transition:
    """Counts the shares of a member; with enough of them, the sum is unmasked, and averaged."""
    phase = unmasking_of(state.phase)
    if phase is None or phase.round != event.round:
        return state, ()
    reply = do.SendReply(event.client, event.session, do.Accept(event.round, event.digest))
    if event.client in phase.opened:
        return state, (reply,)
    phase = replace(phase, opened={**phase.opened, event.client: event.digest})
    if isinstance(state.phase, Aggregating):  # in reserve
        return replace(state, phase=replace(state.phase, unmasking=phase)), (reply,)
    state, effects = _unmask(replace(state, phase=phase), phase, event.now)
    return state, (reply, *effects)


def _unmask(state: Run, phase: Unmasking, now: float) -> Transition:
    if phase.is_hopeless:
        return _give_up(state, phase, now)
    if len(phase.opened) < phase.needed:
        return state, ()
    agreeing, needed = phase.agreeing, replace(phase, needed=len(phase.opened))
    aggregating = Aggregating(
        collected=agreeing.collected,
        closed=agreeing.closed,
        missing=agreeing.missing,
        unmasking=needed,
        unmasked=now,
    )
    return replace(state, phase=aggregating), (average_of(state, agreeing.collected, needed),)


def fail(state: Run, event: on.UnmaskFailed) -> Transition:
    """Unmasks again with the shares of more members; abandons the round if that would not help, or none is left."""
    phase = state.phase
    if not isinstance(phase, Aggregating) or phase.unmasking is None or phase.round != event.round:
        return state, ()
    unmasking = phase.unmasking
    blamed = unmasking.blamed
    if event.client is not None and event.client not in blamed:  # once a round
        state, blamed = blame(state, (event.client,)), (*blamed, event.client)
    failures = (*unmasking.failures, event.detail)
    failed = replace(unmasking, needed=unmasking.needed + event.short, failures=failures, blamed=blamed)
    if event.final:
        return abandon(state, phase.collected, event.now, _failure_text(failed))
    return _unmask(replace(state, phase=failed), failed, event.now)


def decline(state: Run, event: on.Declined) -> Transition:
    """Counts a member that does not open its shares; abandons the round if too few are left."""
    phase = unmasking_of(state.phase)
    if phase is None or phase.round != event.round or not _is_member(phase, event.client):
        return state, ()
    if event.client in phase.opened:
        return state, ()
    declined = {**phase.agreeing.declined, event.client: event.text}
    phase = replace(phase, agreeing=replace(phase.agreeing, declined=declined))
    if isinstance(state.phase, Aggregating):  # what is opened may be enough
        return replace(state, phase=replace(state.phase, unmasking=phase)), ()
    state = replace(state, phase=phase)
    return _give_up(state, phase, event.now) if phase.is_hopeless else (state, ())


def _give_up(state: Run, phase: Unmasking, now: float) -> Transition:
    """Abandons a round whose sum no member is left to open."""
    reason = "too many members declined"
    if phase.failures:
        reason = f"{_failure_text(phase)}; no other member is left to open it"
    return abandon(state, phase.collected, now, reason + declined_text(phase.agreeing))


def advance(state: Run, phase: Unmasking, now: float) -> Transition:
    """Abandons the round at the deadline."""
    if now < phase.deadline:
        return state, ()
    return abandon(state, phase.collected, now, _failure_text(phase))


def _failure_text(phase: Unmasking) -> str:
    count = f"only {len(phase.opened)} of {phase.needed} members opened the sum; the updates stay masked"
    return f"the sum could not be unmasked: {phase.failures[-1]}" if phase.failures else count


def _is_member(phase: Unmasking, client: str) -> bool:
    return client in phase.agreeing.masking.keys
