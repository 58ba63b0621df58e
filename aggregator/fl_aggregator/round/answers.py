"""Answers to updates that do not depend on how the run goes: replies, and what is wrong with an update itself. Pure."""

from __future__ import annotations

from fl_aggregator.round import effects as do
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.phases import Collecting
from fl_aggregator.round.state import Run
from fl_shared.protocol.messages import RejectionReason
from fl_shared.tensors.sections import DELTA


def reject(update: UpdateMetadata, reason: RejectionReason, detail: str) -> do.Reject:
    """Returns the rejection of an update."""
    return do.Reject(update.round, update.digest, reason, detail)


def reply_to(update: UpdateMetadata, body: do.Accept | do.Reject) -> do.SendReply:
    """Returns the reply to the session that sent the update."""
    return do.SendReply(update.client, update.session, body)


def _sum_rejection(state: Run, update: UpdateMetadata) -> do.Reject | None:
    """Rejects a sum that is not from a regional aggregator, or of more edges, examples or steps than there may be.

    Also one without the lengths of its updates, if the strategy needs them.
    """
    client, limit = state.roster.get(update.client), state.settings.max_examples
    stands_for = None if client is None else client.edges
    if stands_for is None or update.edges > stands_for:
        registered = "an edge" if stands_for is None else f"a regional aggregator for {stands_for} edges"
        return reject(update, "wrong-sum", f"sum_of: {update.edges} edges, but it registered as {registered}")
    if state.settings.sums.needs_each:
        return reject(update, "wrong-sum", f"sum_of: {state.settings.sums.needs_each} needs each update")
    heavy = next((part for part in update.parts if not 1 <= part.examples <= limit), None)
    if heavy is not None:
        detail = f"examples: {heavy.examples} of edge {heavy.client}, expected 1 to {limit} (--max-examples)"
        return reject(update, "bad-examples", detail)
    for part in update.parts:
        if state.settings.sums.norms and (part.norm is None or part.norm < 0):
            told = "null" if part.norm is None else part.norm
            return reject(
                update, "wrong-sum", f"sum_of.norms: {told} of edge {part.client}, expected 0 or more"
            )
        of_edge = f" of edge {part.client}"
        if (rejection := _steps_rejection(state, update, part.steps, part.examples, of_edge)) is not None:
            return rejection
    return None


def _steps_rejection(
    state: Run, update: UpdateMetadata, steps: int, examples: int, of_edge: str = ""
) -> do.Reject | None:
    """Rejects more steps than can be taken with so many examples, if steps count in the run.

    Each step needs an example, whatever a task makes of the batch size. In a region, the run above says the epochs.
    """
    order = state.phase.order if isinstance(state.phase, Collecting) else None
    epochs = state.settings.epochs if order is None else order.training.epochs
    if epochs is None or not state.settings.sums.by_steps or steps <= (most := epochs * examples):
        return None
    detail = f"steps: {steps}{of_edge}, expected at most {most} (--epochs × examples)"
    return reject(update, "bad-examples", detail)


def short_digest(digest: str | None) -> str:
    """Returns a digest as people read it."""
    return "none" if digest is None else digest[:12]


def content_rejection(state: Run, update: UpdateMetadata) -> do.Reject | None:
    """Rejects an update whose arrays, or number of examples or steps, are not the run's; null if they are."""
    if not update.manifest:
        return reject(update, "wrong-manifest", f"sections: none is named {DELTA!r}, expected one")
    if update.manifest != state.manifest:
        detail = f"manifest: {short_digest(update.manifest)}, expected {short_digest(state.manifest)}"
        return reject(update, "wrong-manifest", detail)
    if update.parts and (rejection := _sum_rejection(state, update)):
        return rejection
    limit = state.settings.max_examples * update.edges
    if not 1 <= update.examples <= limit:
        detail = f"examples: {update.examples}, expected 1 to {limit} (--max-examples)"
        return reject(update, "bad-examples", detail)
    return None if update.parts else _steps_rejection(state, update, update.steps, update.examples)
