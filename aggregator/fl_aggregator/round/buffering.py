"""The phase of an asynchronous run (FedBuff, Nguyen et al. 2022, algorithm 1). Pure.

At most ``--concurrency`` edges are at work, each with a ticket. An accepted update goes into the open buffer, whatever
version it began from. With ``--buffer`` updates the next version is made, and the buffer after it fills meanwhile. No
update is late: it counts as long as at most ``--max-staleness`` versions have been made since its base.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from fl_aggregator.round import closing, tickets
from fl_aggregator.round import effects as do
from fl_aggregator.round import events as on
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.phases import Aggregating, Buffering, Collecting, Failed, Selecting, Ticket
from fl_aggregator.round.state import Run
from fl_aggregator.round.summary import (
    away_reason,
    failed_edges_detail,
    missing_reasons,
    stuck_buffer_detail,
    summary_of,
)
from fl_shared.system.frozen import replace

COMPLETE: Final = "surplus: the run has all its versions"
"""Why a ticket ends when the last version is made."""


def begin(state: Run, phase: Selecting, now: float) -> Transition:
    """Begins to collect updates; the tickets are issued in the same step."""
    assert state.model is not None
    begun = Buffering(round=phase.round, since=now, opened=now, bases=(state.model,))
    return advance(replace(state, phase=begun), begun, now)


def commit(state: Run, phase: Buffering, event: on.ModelCreated) -> Transition:
    """Commits the version whose average is on disk, if it is the one that is being made."""
    making = phase.making
    if making is None or making.round != event.round:
        return state, ()
    state, effects = closing.committed(state, making, event)
    assert state.model is not None
    known = 1 + (state.settings.max_staleness or 0)
    phase = replace(phase, bases=(*phase.bases, state.model)[-known:], making=None, since=event.now)
    contributors = tuple(making.collected.updates.values())
    return replace(state, phase=phase), (*effects, do.CloseBuffer(making.round, contributors))


def _buffering(state: Run) -> Buffering:
    assert isinstance(state.phase, Buffering)
    return state.phase


def _unanswered(phase: Buffering) -> dict[str, Ticket]:
    return {**phase.tickets, **phase.away}


def abandon(state: Run, phase: Buffering, now: float, reason: str) -> Transition:
    """Abandons all that has been collected, since it cannot be completed, and ends all tickets.

    That may be more than one round: the one whose version is being made, and those whose buffers are full.
    """
    state, withdrawn = _end_tickets(
        state, phase, dict.fromkeys(_unanswered(phase), "the round was abandoned")
    )
    phase, size = _buffering(state), state.settings.per_round
    rounds = [] if phase.making is None else [phase.making.collected]
    for number, first in enumerate(range(0, len(phase.updates) + 1, size)):
        buffer = _collected(state, phase, phase.updates[first : first + size], now)
        rounds.append(replace(buffer, round=phase.round + number))
        phase = replace(phase, dropped={}, away={})
    *earlier, last = rounds
    results: tuple[do.Effect, ...] = ()
    for collected in earlier:
        summary = summary_of(state, collected, now, now, reason=reason)
        state = closing.with_ended_round(state, collected, summary)
        results += (do.PublishResult(summary),)
    made = () if phase.making is None else tuple(phase.making.collected.updates.values())
    state, effects = closing.abandon(state, last, now, reason)
    return state, (*withdrawn, *results, *effects, do.CloseBuffer(last.round, (*made, *phase.updates)))


def advance(state: Run, phase: Buffering, now: float) -> Transition:
    """Does what is due: makes the next version, issues tickets, ends the phase or the run.

    Once all versions are made or the target is reached, nothing more is collected, and the phase is ``Selecting``.
    """
    effects: tuple[do.Effect, ...] = ()
    if phase.making is None:
        if state.version >= state.settings.rounds or state.target_reached:
            return _end(state, phase, now)
        if len(phase.updates) >= state.settings.per_round:
            state, effects = _close(state, phase, now)
    phase = _without_overdue(state, _buffering(state), now)
    issued: tuple[do.Effect, ...] = ()
    if phase.making is None:  # else there is a newer base in a moment
        phase, issued = _issue(state, phase, now)
    if phase is not state.phase:
        state = replace(state, phase=phase)
    if phase.making is not None:
        return state, effects
    if _needs_failed_edges(state, phase):
        state, abandoned = abandon(state, phase, now, failed_edges_detail(state, phase))
        return state, effects + issued + abandoned
    if now >= _stuck_at(state, phase):
        detail = stuck_buffer_detail(state, phase, now)
        state, abandoned = abandon(state, phase, now, detail)
        issued += abandoned
        if isinstance(state.phase, Selecting):  # else it was one too many, and has failed the run
            failed = Failed(at=now, reason="too-few-edges", detail=detail, resume_phase=state.phase)
            state, ended = closing.end_run(state, failed, now)
            issued += ended
    return state, effects + issued


def due(state: Run, phase: Buffering) -> float:
    """Returns the run time at which `advance` does anything, if only time passes; ∞ while a version is made."""
    overdue = min((_overdue_at(state, *one) for one in phase.tickets.items()), default=math.inf)
    return overdue if phase.making is not None else min(overdue, _stuck_at(state, phase))


def _overdue_at(state: Run, client: str, ticket: Ticket) -> float:
    return min(ticket.deadline, state.roster.absent_at(client, state.settings.grace))


def _needs_failed_edges(state: Run, phase: Buffering) -> bool:
    """Whether nobody is at work, and only edges are here that have failed: they get tickets in the next round."""
    at_work = phase.tickets or phase.away
    return not at_work and any(name in phase.dropped for name in state.roster.eligible(state.manifest))


def _stuck_at(state: Run, phase: Buffering) -> float:
    """Returns when the run fails if no update comes; edges at work have their time in addition."""
    settings = state.settings
    return phase.since + settings.wait + (settings.deadline if phase.tickets else 0.0)


def _close(state: Run, phase: Buffering, now: float) -> Transition:
    """Asks for the version of a full buffer, and opens the next one.

    Tickets end whose base is too old from now on; all do if this is the last version.
    """
    size, version = state.settings.per_round, state.version + 1
    taken, rest = phase.updates[:size], phase.updates[size:]
    if version >= state.settings.rounds:
        reasons = dict.fromkeys(_unanswered(phase), COMPLETE)
    else:
        stale = {name: version - ticket.base.version for name, ticket in _unanswered(phase).items()}
        cap = state.settings.max_staleness or 0
        reasons = {name: tickets.stale_text(state, age) for name, age in stale.items() if age > cap}
    state, effects = _end_tickets(state, phase, reasons)
    phase = _buffering(state)
    collected = _collected(state, phase, taken, now)
    making = Aggregating(collected=collected, closed=now, missing=missing_reasons(state, collected, now))
    phase = replace(phase, round=phase.round + 1, opened=now, updates=rest, dropped={}, making=making)
    return replace(state, phase=phase), (*effects, closing.average_of(state, collected))


def _collected(state: Run, phase: Buffering, taken: tuple[UpdateMetadata, ...], now: float) -> Collecting:
    """Returns the open buffer as a round that has closed with these updates. Whoever is still at work is not in it."""
    contributors = {update.client: update for update in taken}
    others = dict.fromkeys((*phase.dropped, *phase.away))
    return Collecting(
        round=phase.round,
        since=phase.opened,
        opened=phase.opened,
        deadline=now,
        base=state.model,
        encoding=state.settings.encoding,
        target=state.settings.per_round,
        quorum=state.settings.per_round,
        selection_size=state.settings.per_round,
        cohort=(*contributors, *(name for name in others if name not in contributors)),
        substitutes=(),
        updates=contributors,
        dropped={
            **phase.dropped,
            **{name: away_reason(state, name, one, now) for name, one in phase.away.items()},
        },
    )


def _end(state: Run, phase: Buffering, now: float) -> Transition:
    """Leaves the phase, since nothing more is to be collected."""
    reasons = dict.fromkeys(_unanswered(phase), "surplus: the target is reached")
    state, effects = _end_tickets(state, phase, reasons)
    leftover = do.CloseBuffer(phase.round, phase.updates)
    return replace(state, phase=Selecting(round=phase.round, since=now, not_before=now)), (*effects, leftover)


def _end_tickets(state: Run, phase: Buffering, reasons: Mapping[str, str]) -> Transition:
    """Ends the tickets of these clients, for these reasons."""
    effects: tuple[do.Effect, ...] = ()
    state = replace(state, phase=phase)
    for client, reason in reasons.items():
        ticket = phase.ticket_of(client)
        assert ticket is not None
        rejection = do.Reject(
            ticket.round, None, "stale" if reason.startswith("stale") else "surplus", reason
        )
        state, ended = tickets.drop(state, _buffering(state), client, ticket.round, reason, rejection)
        effects += ended
    return state, effects


def _without_overdue(state: Run, phase: Buffering, now: float) -> Buffering:
    """Takes those that are over their time, or absent for longer than the grace, from the edges at work."""
    over = {name: one for name, one in phase.tickets.items() if now >= _overdue_at(state, name, one)}
    if not over:
        return phase
    at_work = {name: one for name, one in phase.tickets.items() if name not in over}
    return replace(phase, tickets=at_work, away={**phase.away, **over})


def _issue(state: Run, phase: Buffering, now: float) -> tuple[Buffering, tuple[do.Effect, ...]]:
    """Lets as many edges work as may: those that are here again, then idle ones, then those that were too slow."""
    settings = state.settings
    assert settings.concurrency is not None
    free = settings.concurrency - len(phase.tickets)
    if free <= 0:
        return phase, ()
    present = state.roster.eligible(state.manifest)
    back = {name: phase.away[name] for name in present if name in phase.away}
    at_work = {name: ticket for name, ticket in back.items() if now < ticket.deadline}
    at_work = dict(islice(at_work.items(), free))
    idle = [name for name in present if phase.ticket_of(name) is None and _may_work(state, phase, name)]
    drawn: dict[str, Ticket] = {}
    ticket = Ticket(round=phase.round, base=phase.bases[-1], issued=now, deadline=now + settings.deadline)
    while idle and len(at_work) + len(drawn) < free:
        chosen = _draw(idle, settings.seed, phase.issued + len(drawn))
        idle.remove(chosen)
        drawn[chosen] = ticket
    slow = [name for name in back if name not in at_work and now >= back[name].deadline]
    again = {
        name: replace(back[name], deadline=now + settings.deadline)
        for name in islice(slow, free - len(at_work) - len(drawn))
    }
    working = {**at_work, **drawn, **again}
    if not working:
        return phase, ()
    phase = replace(
        phase,
        tickets={**phase.tickets, **working},
        away={name: one for name, one in phase.away.items() if name not in working},
        issued=phase.issued + len(drawn),
    )
    return phase, tuple(do.IssueTicket(name, one) for name, one in (*drawn.items(), *again.items()))


def _may_work(state: Run, phase: Buffering, client: str) -> bool:
    answered = state.answered.get(client)
    return answered is None or answered.until < phase.round


def _draw(idle: Iterable[str], seed: int, number: int) -> str:
    """Returns the edge that gets ticket ``number``: the lowest SHA-256 of ``seed NUL number NUL client``."""
    return min(idle, key=lambda client: hashlib.sha256(f"{seed}\0{number}\0{client}".encode()).digest())
