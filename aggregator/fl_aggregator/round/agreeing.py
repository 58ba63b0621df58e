"""A masked round after it has closed: its members sign which updates are summed. Pure.

Shares are opened only for a set that ``threshold`` members have signed, and a member signs one set a round. So there is
one sum at most, also after a resume from an older journal: then members decline, and the round is abandoned.
"""

from __future__ import annotations

from fl_aggregator.configuration.masking import unmask_seconds
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.closing import abandon, with_release
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.phases import Agreeing, Unmasking
from fl_aggregator.round.state import Run
from fl_aggregator.round.summary import declined_text
from fl_shared.system.frozen import replace


def agree(state: Run, event: on.Agreed) -> Transition:
    """Counts a member's signature; with enough of them, the members are asked to open their shares."""
    phase = state.phase
    if not isinstance(phase, Agreeing) or phase.round != event.round:
        return state, ()
    if event.client in phase.signatures or event.client not in phase.masking.keys:
        return state, ()
    phase = replace(phase, signatures={**phase.signatures, event.client: event.signature})
    if len(phase.signatures) < phase.masking.threshold:
        return replace(state, phase=phase), ()
    deadline = event.now + unmask_seconds(state.settings)
    unmasking = Unmasking(agreeing=phase, since=event.now, deadline=deadline, needed=phase.masking.threshold)
    return replace(with_release(state, phase.collected), phase=unmasking), (reveal_of(unmasking),)


def decline(state: Run, event: on.Declined) -> Transition:
    """Counts a member that does not sign; abandons the round if too few are left."""
    phase = state.phase
    if (
        not isinstance(phase, Agreeing)
        or phase.round != event.round
        or event.client not in phase.masking.keys
    ):
        return state, ()
    phase = replace(phase, declined={**phase.declined, event.client: event.text})
    state = replace(state, phase=phase)
    if len(phase.declined) <= len(phase.masking.keys) - phase.masking.threshold:
        return state, ()
    return abandon(state, phase.collected, event.now, f"too many members declined{declined_text(phase)}")


def advance(state: Run, phase: Agreeing, now: float) -> Transition:
    """Abandons the round at the deadline."""
    if now < phase.deadline:
        return state, ()
    count = f"only {len(phase.signatures)} of {phase.masking.threshold} members agreed to what is summed"
    reason = f"{count}; the updates stay masked{declined_text(phase)}"
    return abandon(state, phase.collected, now, reason)


def reveal_of(phase: Unmasking) -> do.PublishReveal:
    """Returns the effect that asks for shares."""
    collected = phase.collected
    return do.PublishReveal(phase.round, collected.included, phase.agreeing.signatures, phase.deadline)
