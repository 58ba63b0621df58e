"""Opens rounds: decides which edges are eligible, in which order, and whether there are enough. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from fl_aggregator.round import effects as do
from fl_aggregator.round import registration
from fl_aggregator.round.closing import announcement_of, end_run, finish
from fl_aggregator.round.effects import Transition
from fl_aggregator.round.state import (
    Collecting,
    Evaluating,
    Failed,
    Run,
    Selecting,
)
from fl_aggregator.round.summary import too_few_edges_detail
from fl_aggregator.settings import Target
from fl_shared.protocol.messages import LOSS
from fl_shared.tensors.encodings.float32 import FLOAT32

LOADING_TIMEOUT: Final = 60.0
"""Seconds that edges have to load a partition that was assigned only at the end of the wait."""


def select(state: Run, phase: Selecting | Evaluating, now: float) -> Transition:
    """Opens the next round if enough edges are eligible; otherwise waits, finishes the run, or fails.

    The run finishes when all versions were made or the target was reached; first it waits for pending
    evaluations. It fails if too few edges are eligible for ``wait`` seconds, or if the task does not have the
    metric of the target.
    """
    settings = state.settings
    if settings.parsed_target is not None and state.declared is not None and state.target_metric is None:
        return _fail_for_unknown_target(state, settings.parsed_target, now)
    is_done = state.version >= settings.rounds or state.target_reached
    if is_done or settings.target is not None:
        if state.evaluations:
            evaluating = Evaluating(round=phase.round, since=phase.since)
            return (state if phase == evaluating else replace(state, phase=evaluating)), ()
        if is_done:
            return finish(state, now)
    if isinstance(phase, Evaluating):
        phase = Selecting(round=phase.round, since=now, not_before=now)
        state = replace(state, phase=phase)
    if now < phase.not_before or state.roster.has_unconfirmed_trainers(now):
        return state, ()
    if not state.begun:
        return _begin_run(state, phase, now)
    eligible = state.roster.eligible(state.manifest)
    minimum = 1 if state.model is None else settings.effective_quorum
    if len(eligible) >= minimum:
        return _open_round(state, phase, eligible, now)
    if now - phase.since >= settings.wait:
        return _fail_for_lack_of_edges(state, eligible, minimum, now)
    return state, ()


def _begin_run(state: Run, phase: Selecting, now: float) -> Transition:
    """Opens the first round when all ``clients`` have loaded, or with a quorum of them after ``wait``."""
    settings = state.settings
    elapsed = now - phase.since
    effects: tuple[do.Effect, ...] = ()
    if elapsed < settings.wait and len(state.roster.clients) < settings.clients:
        return state, ()  # cheap, while thousands of edges register
    trainers = state.roster.trainers()
    all_registered = len(trainers) >= settings.clients
    if (all_registered or elapsed >= settings.wait) and any(
        state.roster[n].partition is None for n in trainers
    ):
        state, effects = registration.assign_free_partitions(state)
        all_registered = len(state.roster.trainers()) >= settings.clients
    loading = any(state.roster[name].examples is None for name in trainers if name in state.roster)
    if loading and elapsed < settings.wait + LOADING_TIMEOUT:
        return state, effects
    manifest = registration.common_manifest(state)
    eligible = state.roster.eligible(manifest) if manifest is not None else ()
    enough = len(eligible) >= settings.effective_quorum
    # If all edges are here but some have no data or another model, the quorum is enough: no more will come.
    if elapsed < settings.wait and not (all_registered and enough):
        return state, effects
    if not enough:
        state, further_effects = _fail_for_lack_of_edges(state, eligible, settings.effective_quorum, now)
        return state, effects + further_effects
    state, refused = registration.refuse_other_manifests(replace(state, begun=True, manifest=manifest))
    state, announcements = _open_round(state, phase, eligible, now)
    return state, (*effects, *refused, *announcements)


def _open_round(state: Run, phase: Selecting, eligible: tuple[str, ...], now: float) -> Transition:
    settings = state.settings
    ranked = permutation(eligible, settings.seed, phase.round)
    first_weights = state.model is None
    width = 1 if first_weights else min(settings.per_round + settings.over_select, len(ranked))
    collecting = Collecting(
        round=phase.round,
        since=phase.since,
        opened=now,
        deadline=now + settings.deadline,
        base=state.model,
        encoding=FLOAT32.name if first_weights else settings.encoding,
        target=1 if first_weights else min(settings.per_round, len(ranked)),
        quorum=1 if first_weights else settings.effective_quorum,
        selection_size=width,
        cohort=ranked[:width],
        substitutes=ranked[width:],
    )
    return replace(state, phase=collecting), (announcement_of(collecting),)


def _fail_for_lack_of_edges(state: Run, eligible: tuple[str, ...], minimum: int, now: float) -> Transition:
    assert isinstance(state.phase, Selecting | Evaluating)
    detail = too_few_edges_detail(state, eligible, minimum)
    return end_run(
        state, Failed(at=now, reason="too-few-edges", detail=detail, resume_phase=state.phase), now
    )


def _fail_for_unknown_target(state: Run, target: Target, now: float) -> Transition:
    assert isinstance(state.phase, Selecting | Evaluating)
    names = ", ".join([LOSS.name, *(metric.name for metric in state.declared or ())])
    detail = f"--target: the task {state.settings.task!r} has no metric {target.metric!r}; it has: {names}"
    return end_run(
        state, Failed(at=now, reason="unknown-target", detail=detail, resume_phase=state.phase), now
    )


def permutation(clients: Iterable[str], seed: int, round_number: int) -> tuple[str, ...]:
    """All ``clients`` in this round's order: ascending by SHA-256 of ``seed NUL round NUL client``.

    A hash instead of a random generator, because its order is the same with every version of every library,
    and because a client that comes or goes leaves the order of the others as it was.
    """

    def rank(client: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{round_number}\0{client}".encode()).digest()

    return tuple(sorted(clients, key=rank))
