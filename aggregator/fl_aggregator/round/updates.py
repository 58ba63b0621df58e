"""Decides on updates, and on whether the edges that sent them stay in the round. Pure."""

from __future__ import annotations

from typing import Final, TypeGuard

from fl_aggregator.round import effects as do
from fl_aggregator.round import tickets
from fl_aggregator.round.answers import content_rejection, reject, reply_to, short_digest
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.phases import (
    REJECTED,
    Aggregating,
    Agreeing,
    Buffering,
    Collecting,
    Phase,
    Unmasking,
)
from fl_aggregator.round.state import ClosedRound, Run
from fl_shared.protocol.messages import RejectionReason
from fl_shared.system.frozen import replace
from fl_shared.system.text import shortened

MAX_CLOSED_ROUNDS: Final = 4
"""Closed rounds that are remembered, to answer late updates."""
MAX_MISSING_REASON: Final = 240
"""Characters of the reason why an edge is missing: part of it is the edge's own text, and a result names many
edges."""


def decide(state: Run, update: UpdateMetadata) -> do.Accept | do.Reject | None:
    """Accepts or rejects an update by its metadata; null if its values have to be checked first."""
    phase = state.phase
    if _is_of_ticket(phase, update):
        return tickets.decide(state, phase, update)
    if not isinstance(phase, Collecting) or phase.round != update.round:
        return tickets.decide_answered(state, update) or _decide_closed(state, update)
    if not phase.has_selected(update.client):
        return reject(update, "not-selected", f"{update.client!r} is not selected in round {update.round}")
    stored = phase.updates.get(update.client)
    if stored is not None:
        if stored.digest == update.digest:
            return do.Accept(update.round, update.digest)
        detail = f"update {short_digest(stored.digest)} of this round has already been accepted"
        return reject(update, "duplicate", detail)
    base = None if phase.base is None else phase.base.digest
    if update.base != base:
        detail = f"base: {short_digest(update.base)}, expected {short_digest(base)}"
        return reject(update, "wrong-base", detail)
    if (update.plan is None) != (phase.masking is None):
        if update.plan is None:
            return reject(update, "not-masked", "plan: none, but updates of this round are masked")
        return reject(update, "masked", f"plan: {short_digest(update.plan)}, but the round is not masked")
    taken, slots = sum(one.edges for one in phase.updates.values()), state.settings.slots
    if taken + update.edges > slots:
        detail = f"a sum of {update.edges} edges, but {taken} of {slots} are in the round (--edges-per-round)"
        return reject(update, "surplus", detail)
    return content_rejection(state, update)


def _is_of_ticket(phase: Phase, update: UpdateMetadata) -> TypeGuard[Buffering]:
    """Whether a ticket decides. First weights come in a round, also in an asynchronous run."""
    return isinstance(phase, Buffering) and update.round > 0


def _decide_closed(state: Run, update: UpdateMetadata) -> do.Accept | do.Reject:
    phase = state.phase
    if isinstance(phase, Agreeing | Unmasking | Aggregating) and phase.round == update.round:
        closed: ClosedRound | None = closed_round(phase.collected)
    else:
        closed = next((c for c in state.closed_rounds if c.round == update.round), None)
    if closed is None:
        open_round = f"round {phase.round} is open" if isinstance(phase, Collecting) else "no round is open"
        reason: RejectionReason = "stale-round" if isinstance(phase, Collecting) else "no-round"
        return do.Reject(update.round, update.digest, reason, f"round: {update.round}, but {open_round}")
    if closed.accepted.get(update.client) == update.digest:
        return do.Accept(update.round, update.digest)
    if update.client not in closed.cohort:
        detail = f"{update.client!r} was not selected in round {update.round}"
        return do.Reject(update.round, update.digest, "not-selected", detail)
    if closed.reached_target:
        detail = f"round {update.round} already had all the updates it needed"
        return do.Reject(update.round, update.digest, "surplus", detail)
    return do.Reject(update.round, update.digest, "late", f"round {update.round} has closed")


def is_awaited(state: Run, client: str, round_number: int) -> bool:
    """Whether `decide` would look at more of an update than its round and its sender."""
    phase = state.phase
    if isinstance(phase, Buffering):
        ticket = phase.ticket_of(client)
        return ticket is not None and ticket.round == round_number
    return (
        isinstance(phase, Collecting)
        and phase.round == round_number
        and phase.has_selected(client)
        and client not in phase.updates
    )


def may_describe_arrays(state: Run, client: str | None) -> bool:
    """Whether first weights are awaited from ``client``, or from anyone if it is null."""
    phase = state.phase
    if not isinstance(phase, Collecting) or phase.base is not None:
        return False
    return client is None or client in phase.awaited


def accept(state: Run, update: UpdateMetadata, now: float) -> Transition:
    """Counts an update that is in the spool, and asks for its fold.

    The update may have been stored twice, or the round may have closed; then only the reply is sent.
    """
    if _is_of_ticket(state.phase, update):
        return tickets.accept(state, state.phase, update, now)
    answer = decide(state, update)
    if answer is not None:
        return state, (reply_to(update, answer),)
    phase = state.phase
    assert isinstance(phase, Collecting)
    counted = state.counted.get(update.client)
    accepted = replace(
        update,
        response_seconds=phase.waited_for(update.client, now),
        section_examples=None if counted is None else counted.examples,
    )
    phase = replace(
        phase,
        updates={**phase.updates, update.client: accepted},
        awaited=phase.awaited.without(update.client),
    )
    reply = reply_to(update, do.Accept(update.round, update.digest))
    return replace(state, phase=phase), (reply, do.Fold(accepted, update.round))


def drop_if_rejected(
    state: Run, client: str, round_number: int, decision: do.Accept | do.Reject
) -> Transition:
    """Drops an edge from the round if its update was rejected: it will not send another one."""
    if isinstance(decision, do.Accept):
        return state, ()
    reason = f"{REJECTED}{decision.reason}: {decision.detail}"
    return drop_from_round(state, client, round_number, reason, decision)


def drop_from_round(
    state: Run, client: str, round_number: int, reason: str, rejection: do.Reject | None = None
) -> Transition:
    """Stops waiting for ``client`` in round ``round_number``, if that round is open, or its ticket is not answered."""
    phase, reason = state.phase, shortened(reason, MAX_MISSING_REASON)
    if isinstance(phase, Buffering):
        return tickets.drop(state, phase, client, round_number, reason, rejection)
    if not isinstance(phase, Collecting) or phase.round != round_number or client not in phase.awaited:
        return state, ()
    dropped = {**phase.dropped, client: reason}
    return replace(state, phase=replace(phase, dropped=dropped, awaited=phase.awaited.without(client))), ()


def closed_round(phase: Collecting) -> ClosedRound:
    """Returns what is remembered of a round that has closed."""
    return ClosedRound(
        round=phase.round,
        cohort=frozenset(phase.cohort),
        accepted={name: update.digest for name, update in phase.updates.items()},
        reached_target=len(phase.updates) >= phase.target,
    )


def append_closed_round(closed: tuple[ClosedRound, ...], phase: Collecting) -> tuple[ClosedRound, ...]:
    """Returns the last few closed rounds, with this one.

    Round 0 may close more than once; its last end counts.
    """
    return (*(c for c in closed if c.round != phase.round), closed_round(phase))[-MAX_CLOSED_ROUNDS:]
