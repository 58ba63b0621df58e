"""Opens rounds: decides which edges are eligible, in which order, and whether there are enough. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Final

from fl_aggregator.configuration.masking import (
    Masking,
    fewest_members,
    masking_of,
    most_members,
    with_keys_of_their_own,
)
from fl_aggregator.configuration.values import Target
from fl_aggregator.round import (
    buffering,
    drawing,
    evaluation,
    looking,
    ordering,
    pace,
    personalization,
    registration,
)
from fl_aggregator.round.awaited import Awaited
from fl_aggregator.round.closing import announcement_of, end_run, finish
from fl_aggregator.round.effects import PublishModel, Transition
from fl_aggregator.round.phases import Collecting, Evaluating, Failed, Finished, Selecting
from fl_aggregator.round.state import Run
from fl_aggregator.round.summary import all_decline, too_few_edges_detail
from fl_shared.protocol.messages import LOSS
from fl_shared.system.frozen import replace
from fl_shared.tensors.encodings.float32 import FLOAT32

LOADING_TIMEOUT: Final = 60.0
"""Seconds that edges have to load a partition that was assigned only at the end of the wait."""


def select(state: Run, phase: Selecting | Evaluating, now: float) -> Transition:
    """Opens the next round if enough edges are eligible; otherwise waits, finishes the run, or fails.

    The run finishes when all versions were made or the target was reached; first it waits for pending
    evaluations, and for models of the edges' own if there are to be any. It fails if too few edges are eligible for
    ``wait`` seconds, or if the task does not have the metric of the target, or one that noise can hide.
    """
    settings = state.settings
    if settings.parsed_target is not None and state.declared is not None and state.target_metric is None:
        return _fail_for_unknown_target(state, settings.parsed_target, now)
    if settings.dp_accuracy and state.declared is not None and not state.primary.is_fraction:
        return _fail_for_unbounded_metric(state, now)
    if (lacking := looking.lack_of_reports(state)) is not None:
        resumed = Selecting(round=phase.round, since=now, not_before=now)
        failed = Failed(at=now, reason="too-few-edges", detail=lacking, resume_phase=resumed)
        return end_run(state, failed, now)
    if state.is_done or settings.target is not None:
        if state.evaluations:
            evaluating = Evaluating(round=phase.round, since=phase.since)
            return (state if phase == evaluating else replace(state, phase=evaluating)), ()
        if personalization.is_owed(state):
            state, effects = personalization.request(state, phase.round, phase.since, now)
            if effects:
                return state, effects
        if state.is_done:
            return finish(state, now)
    if isinstance(phase, Evaluating):
        phase = Selecting(round=phase.round, since=now, not_before=now)
        state = replace(state, phase=phase)
    if now < _not_before(state, phase):
        return state, ()
    if not state.begun:
        return _begin_run(state, phase, now)
    if _is_budget_spent(state):
        return end_run(state, Finished(at=now, reason="privacy-budget"), now)
    if now < _decides_at(state, phase):
        return state, ()
    eligible = _eligible(state)
    if settings.region is not None:
        waiting = ordering.decide(state, now, len(eligible), _minimum(state))
        return _open_round(state, phase, eligible, now) if waiting is None else waiting
    if len(eligible) >= _minimum(state):
        return _open_round(state, phase, eligible, now)
    return _fail_for_lack_of_edges(state, phase, eligible, now)


def due(state: Run, phase: Selecting) -> float:
    """Returns the run time at which `select` does anything, if only time passes."""
    return max(_not_before(state, phase), _decides_at(state, phase))


def _not_before(state: Run, phase: Selecting) -> float:
    return max(phase.not_before, state.roster.trainers_confirmed_at())


def _decides_at(state: Run, phase: Selecting) -> float:
    """Returns when a round opens, the first partitions are assigned, or the run fails: perhaps at once (-∞).

    The first round waits for all ``clients``. If all are here but some have no data or another model, the quorum is
    enough: no more will come. In a survey, who declines is here. If all are here and decline, the run fails at once.
    """
    if state.begun and state.settings.region is not None:
        return ordering.due(state, len(_eligible(state)), _minimum(state))
    if state.settings.region is None and all_decline(state):
        return -math.inf
    waited = phase.since + state.settings.wait
    complete = True
    if not state.begun:
        is_survey = state.settings.survey is not None
        here = state.roster.count(lambda one: one.present and (one.trains or (is_survey and one.declined)))
        complete = here >= state.settings.expected_edges
        if _some_unassigned(state):
            return -math.inf if complete else waited
        if state.roster.count(lambda one: one.trains and one.present and one.loaded is None):
            return waited + LOADING_TIMEOUT
    return -math.inf if complete and _count_eligible(state) >= _minimum(state) else waited


def _some_unassigned(state: Run) -> bool:
    return state.roster.count(lambda one: one.trains and one.present and not one.assigned) > 0


def _count_eligible(state: Run) -> int:
    manifest = state.manifest if state.begun else registration.common_manifest(state)
    if manifest is None:
        return 0
    excluded = [name for name in _excluded(state) if _is_eligible(state, name, manifest)]
    return state.roster.count_eligible(manifest) - len(excluded)


def _is_eligible(state: Run, name: str, manifest: str | None) -> bool:
    client = state.roster.get(name)
    return client is not None and client.present and client.ready(manifest)


def _excluded(state: Run) -> frozenset[str]:
    """Returns the edges that a private run keeps out of the next release."""
    plan = state.settings.privacy
    if plan is None or state.model is None or state.settings.has_secret_cohorts:
        return frozenset()
    return state.releases.excluded(plan)


def _is_budget_spent(state: Run) -> bool:
    """Whether a private run makes no further release: only edges that have contributed often enough are missing."""
    plan = state.settings.privacy
    if plan is None or state.model is None:
        return False
    if state.settings.has_secret_cohorts:
        return state.releases.made >= plan.times
    used_up = state.releases.used_up(plan)
    present = sum(_is_eligible(state, name, state.manifest) for name in used_up)
    others = sum(client.trains and name not in used_up for name, client in state.roster.clients.items())
    return others < _minimum(state) <= others + present


def _eligible(state: Run) -> tuple[str, ...]:
    manifest = state.manifest if state.begun else registration.common_manifest(state)
    eligible = state.roster.eligible(manifest) if manifest is not None else ()
    if excluded := _excluded(state):
        eligible = tuple([name for name in eligible if name not in excluded])
    if not state.settings.masked:
        return eligible
    return tuple(with_keys_of_their_own({name: state.roster[name].keys or "" for name in eligible}))


def _minimum(state: Run) -> int:
    if state.begun and state.model is None:
        return 1
    settings = state.settings
    return fewest_members(settings) if settings.masked else settings.effective_quorum


def _begin_run(state: Run, phase: Selecting, now: float) -> Transition:
    """Opens the first round when all ``clients`` have loaded, or with a quorum of them after ``wait``."""
    settings = state.settings
    if now < _decides_at(state, phase):
        return state, ()
    if _some_unassigned(state):
        state, effects = registration.assign_free_partitions(state)
        state, further_effects = _begin_run(state, phase, now)
        return state, effects + further_effects
    eligible = _eligible(state)
    if len(eligible) < _minimum(state):
        return _fail_for_lack_of_edges(state, phase, eligible, now)
    manifest = registration.common_manifest(state)
    state, refused = registration.refuse_other_manifests(replace(state, begun=True, manifest=manifest))
    if settings.region is not None:
        return state, refused
    if settings.look is not None and state.model is not None:
        served = state.model
        state, split = evaluation.request_evaluation(state, served, now)
        state = replace(state, phase=Evaluating(round=phase.round, since=phase.since))
        return state, (*refused, PublishModel(0, served, split))
    state, announcements = _open_round(state, phase, eligible, now)
    return state, (*refused, *announcements)


def _open_round(state: Run, phase: Selecting, eligible: tuple[str, ...], now: float) -> Transition:
    settings = state.settings
    if settings.has_secret_cohorts and state.model is not None:
        return drawing.draw(state, phase, eligible)
    if settings.mode == "async" and state.model is not None:
        return buffering.begin(state, phase, now)
    ranked = permutation(eligible, settings.seed, phase.round)
    first_weights = state.model is None
    extra = pace.over_selection(settings, state.response_times)
    width = 1 if first_weights else min(settings.per_round + extra, len(ranked))
    masking = None
    if settings.masked and not first_weights:
        ranked, masking = _masked_cohort(state, ranked, min(width, most_members(settings)))
        width = len(ranked)
    collecting = Collecting(
        round=phase.round,
        since=phase.since,
        opened=now,
        deadline=now + pace.deadline(settings, state.response_times)
        if state.order is None
        else state.order.deadline,
        base=state.model,
        encoding=FLOAT32.name if first_weights else settings.encoding,
        target=1 if first_weights else min(settings.per_round, len(ranked)),
        quorum=1 if first_weights else settings.effective_quorum if masking is None else masking.least,
        selection_size=width,
        cohort=ranked[:width],
        substitutes=ranked[width:],
        awaited=Awaited.of(ranked[:width], state.roster, settings.grace),
        order=state.order,
        masking=masking,
        clip=None if first_weights else state.releases.clip_of(settings.privacy),
    )
    return replace(state, phase=collecting, order=None), (announcement_of(collecting),)


def _masked_cohort(state: Run, ranked: tuple[str, ...], width: int) -> tuple[tuple[str, ...], Masking]:
    """Returns the members of a masked round, and how they mask. It has no substitutes: all keys are in each mask."""
    chosen = ranked[:width]
    return chosen, masking_of(state.settings, {name: state.roster[name].keys or "" for name in chosen})


def _fail_for_lack_of_edges(
    state: Run, phase: Selecting, eligible: tuple[str, ...], now: float
) -> Transition:
    detail = too_few_edges_detail(state, eligible, _minimum(state))
    return end_run(state, Failed(at=now, reason="too-few-edges", detail=detail, resume_phase=phase), now)


def _fail_for_unknown_target(state: Run, target: Target, now: float) -> Transition:
    assert isinstance(state.phase, Selecting | Evaluating)
    names = ", ".join([LOSS.name, *(metric.name for metric in state.declared or ())])
    detail = f"--target: the task {state.settings.task!r} has no metric {target.metric!r}; it has: {names}"
    return end_run(
        state, Failed(at=now, reason="unknown-target", detail=detail, resume_phase=state.phase), now
    )


def _fail_for_unbounded_metric(state: Run, now: float) -> Transition:
    assert isinstance(state.phase, Selecting | Evaluating)
    name, values = state.primary.name, state.primary.range_text
    detail = f"--dp-accuracy: {name!r} of the task {state.settings.task!r} is {values}; expected a metric from 0 to 1"
    failed = Failed(at=now, reason="unbounded-metric", detail=detail, resume_phase=state.phase)
    return end_run(state, failed, now)


def permutation(clients: Iterable[str], seed: int, round_number: int) -> tuple[str, ...]:
    """All ``clients`` in this round's order: ascending by SHA-256 of ``seed NUL round NUL client``.

    A hash instead of a random generator, because its order is the same with every version of every library,
    and because a client that comes or goes leaves the order of the others as it was.
    """

    def rank(client: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{round_number}\0{client}".encode()).digest()

    return tuple(sorted(clients, key=rank))
