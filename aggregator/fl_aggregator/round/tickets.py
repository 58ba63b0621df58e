"""Decides on the updates of an asynchronous run, and on when a ticket ends. Pure.

An edge has at most one ticket that is not answered. It gets the next one only in a later round than the one that has
its update, so that it contributes at most once to a version, and the numbers of its tickets grow.
"""

from __future__ import annotations

from fl_aggregator.round import effects as do
from fl_aggregator.round.answers import content_rejection, reject, reply_to, short_digest
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.phases import REJECTED, Buffering
from fl_aggregator.round.state import Answered, Run
from fl_shared.system.frozen import replace


def decide(state: Run, phase: Buffering, update: UpdateMetadata) -> do.Accept | do.Reject | None:
    """Accepts or rejects an update by its metadata; null if its values have to be checked first."""
    ticket = phase.ticket_of(update.client)
    if ticket is None or ticket.round != update.round:
        if ticket is not None and ticket.round > update.round:
            return reject(update, "stale-round", f"{update.client!r} has a ticket of round {ticket.round}")
        return decide_answered(state, update) or reject(
            update, "not-selected", f"{update.client!r} has no ticket of round {update.round}"
        )
    base = next((one for one in phase.bases if one.digest == update.base), None)
    if base is None or base.version < ticket.base.version:
        detail = f"base: {short_digest(update.base)}, expected that of the ticket, {short_digest(ticket.base.digest)}, "
        return reject(update, "wrong-base", detail + "or a later version")
    stale = staleness(state, phase, base.version)
    if stale > _cap(state):
        return reject(update, "stale", stale_text(state, stale))
    return content_rejection(state, update)


def decide_answered(state: Run, update: UpdateMetadata) -> do.Accept | do.Reject | None:
    """Repeats the answer to the update of a ticket that has ended; null if the ticket is not known."""
    answered = state.answered.get(update.client)
    if answered is None or answered.round < update.round:
        return None
    if answered.round > update.round:  # repeated by the network: the edge has moved on
        return reject(update, "stale-round", f"{update.client!r} has had a ticket of round {answered.round}")
    if answered.digest == update.digest:
        return do.Accept(update.round, update.digest)
    if answered.digest is not None:
        detail = f"update {short_digest(answered.digest)} of this ticket has already been accepted"
        return reject(update, "duplicate", detail)
    return reject(update, answered.reason, answered.detail)


def staleness(state: Run, phase: Buffering, base: int) -> int:
    """Returns how many versions are made between ``base`` and the one that an update will be in if it comes now."""
    return phase.versions + len(phase.updates) // state.settings.per_round - base


def stale_text(state: Run, versions: int) -> str:
    """Says that an update is too stale, with both numbers."""
    return f"stale: {versions} versions, at most {_cap(state)} count (--max-staleness)"


def _cap(state: Run) -> int:
    cap = state.settings.max_staleness
    assert cap is not None, "an asynchronous run has it"
    return cap


def accept(state: Run, phase: Buffering, update: UpdateMetadata, now: float) -> Transition:
    """Takes an update that is in the spool into the buffer, and asks for its fold; or only repeats the answer."""
    answer = decide(state, phase, update)
    if answer is not None:
        reply = reply_to(update, answer)
        if isinstance(answer, do.Accept):
            return state, (reply,)
        missing = f"{REJECTED}{answer.reason}: {answer.detail}"
        state, effects = drop(state, phase, update.client, update.round, missing, answer)
        return state, (reply, *effects)
    base = next(one.version for one in phase.bases if one.digest == update.base)
    accepted = replace(update, staleness=staleness(state, phase, base))
    number = phase.round + len(phase.updates) // state.settings.per_round
    answered = Answered(round=update.round, until=number, digest=update.digest)
    phase = replace(phase, updates=(*phase.updates, accepted), since=now)
    return answer_ticket(state, phase, update.client, answered), (
        reply_to(update, do.Accept(update.round, update.digest)),
        do.Fold(accepted, number),
        do.WithdrawTicket(update.client, update.round),
    )


def drop(
    state: Run, phase: Buffering, client: str, number: int, missing: str, rejection: do.Reject | None = None
) -> Transition:
    """Ends a ticket without an update, if it is the edge's newest one.

    ``missing``: why, for people. ``rejection``: the answer to the edge's update, if there was one.
    """
    ticket = phase.ticket_of(client)
    if ticket is None or ticket.round != number:
        return state, ()
    answered = Answered(round=number, until=phase.round, detail=missing)
    if rejection is not None:
        answered = replace(answered, reason=rejection.reason, detail=rejection.detail)
    phase = replace(phase, dropped={**phase.dropped, client: missing})
    return answer_ticket(state, phase, client, answered), (do.WithdrawTicket(client, number),)


def answer_ticket(state: Run, phase: Buffering, client: str, answered: Answered) -> Run:
    """Returns the run without the edge's ticket, and with how it ended."""
    return replace(
        state,
        phase=replace(
            phase,
            tickets={name: one for name, one in phase.tickets.items() if name != client},
            away={name: one for name, one in phase.away.items() if name != client},
        ),
        answered={**state.answered, client: answered},
    )
