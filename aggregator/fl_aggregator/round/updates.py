"""What becomes of an update, and of the edge that sent it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fl_aggregator.round import effects as do
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.state import Aggregating, ClosedRound, Collecting, Run
from fl_shared.protocol.messages import RejectionReason
from fl_shared.system.text import shortened
from fl_shared.tensors.sections import DELTA

MAX_CLOSED_ROUNDS: Final = 4
MAX_MISSING_REASON: Final = 240
"""Characters of why an edge is out: part of it is the edge's own words, and a result names many."""


def decide(state: Run, update: UpdateMetadata) -> do.Accept | do.Reject | None:
    """The answer to an update by all but its values; null if it is wanted, and they are to be checked."""

    def reject(reason: RejectionReason, detail: str) -> do.Reject:
        return do.Reject(update.round, update.digest, reason, detail)

    phase = state.phase
    if not isinstance(phase, Collecting) or phase.round != update.round:
        return _decide_closed(state, update)
    if update.client not in phase.cohort:
        return reject("not-selected", f"{update.client!r} is not selected in round {update.round}")
    held = phase.updates.get(update.client)
    if held is not None:
        if held.digest == update.digest:
            return do.Accept(update.round, update.digest)
        return reject("duplicate", f"update {held.digest[:12]} of this round has already been accepted")
    base = None if phase.base is None else phase.base.digest
    if update.base != base:
        return reject("wrong-base", f"base: {_short_digest(update.base)}, expected {_short_digest(base)}")
    if not update.manifest:
        return reject("wrong-manifest", f"sections: none is named {DELTA!r}, expected one")
    if update.manifest != state.manifest:
        detail = f"manifest: {_short_digest(update.manifest)}, expected {_short_digest(state.manifest)}"
        return reject("wrong-manifest", detail)
    most = state.settings.max_examples
    if not 1 <= update.examples <= most:
        return reject("bad-examples", f"examples: {update.examples}, expected 1 to {most} (--max-examples)")
    return None


def _decide_closed(state: Run, update: UpdateMetadata) -> do.Accept | do.Reject:
    phase = state.phase
    if isinstance(phase, Aggregating) and phase.round == update.round:
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


def _short_digest(digest: str | None) -> str:
    return "none" if digest is None else digest[:12]


def accept(state: Run, update: UpdateMetadata) -> Transition:
    """An update lies in the spool. It may be there for the second time, or the round may have closed."""
    answer = decide(state, update)
    if answer is not None:
        return state, (reply_to(update, answer),)
    assert isinstance(state.phase, Collecting)
    phase = replace(state.phase, updates={**state.phase.updates, update.client: update})
    accepted = reply_to(update, do.Accept(update.round, update.digest))
    return replace(state, phase=phase), (accepted, do.Fold(update))


def reply_to(update: UpdateMetadata, body: do.Accept | do.Reject) -> do.SendReply:
    """The answer to whoever sent the update."""
    return do.SendReply(update.client, update.session, body)


def drop_if_rejected(state: Run, client: str, number: int, verdict: do.Accept | do.Reject) -> Run:
    """A selected edge whose update is no good will not send another: it is out of the round."""
    if isinstance(verdict, do.Accept):
        return state
    return drop_from_round(state, client, number, f"rejected: {verdict.reason}: {verdict.detail}")


def drop_from_round(state: Run, client: str, number: int, why: str) -> Run:
    """Nothing is awaited any more of ``client`` in round ``number``, if it is the open one."""
    phase = state.phase
    if not isinstance(phase, Collecting) or phase.round != number or client not in phase.awaited:
        return state
    return replace(
        state, phase=replace(phase, dropped={**phase.dropped, client: shortened(why, MAX_MISSING_REASON)})
    )


def closed_round(phase: Collecting) -> ClosedRound:
    """What is to be remembered of a round that has closed."""
    return ClosedRound(
        round=phase.round,
        cohort=frozenset(phase.cohort),
        accepted={name: update.digest for name, update in phase.updates.items()},
        reached_target=len(phase.updates) >= phase.target,
    )


def append_closed_round(closed: tuple[ClosedRound, ...], phase: Collecting) -> tuple[ClosedRound, ...]:
    """The last few closed rounds. Round 0 may close more than once: what counts is how it did last."""
    return (*(c for c in closed if c.round != phase.round), closed_round(phase))[-MAX_CLOSED_ROUNDS:]
