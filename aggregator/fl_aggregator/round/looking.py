"""Judges in a look whether a candidate is better than the served model, which is version 0 of the run. Pure.

Both are measured on the same holdouts: those of the edges that have reported on both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from fl_aggregator.round.effects import StoreBest, Transition
from fl_aggregator.round.phases import Evaluating, Selecting
from fl_aggregator.round.state import Comparison, Looked, Run, Score
from fl_shared.protocol.messages import MetricDeclaration, ModelReference
from fl_shared.system.frozen import replace


def is_held(state: Run, now: float) -> bool:
    """Whether the look has not begun: edges only predict, and load no data yet."""
    phase = state.phase
    return (
        state.settings.look is not None
        and not state.begun
        and isinstance(phase, Selecting)
        and now < phase.not_before
    )


def lack_of_reports(state: Run) -> str | None:
    """Says that too few edges have measured the served model; null if enough have, or it is still measured."""
    if state.settings.look is None or not state.begun or state.version > 0 or state.evaluations:
        return None
    count, least = 0 if state.looked is None else len(state.looked.served), state.settings.effective_quorum
    if count >= least:
        return None
    return f"{count} edges have measured the served model; at least {least} are needed"


def judge(
    state: Run, model: ModelReference, reports: Iterable[tuple[str, int, Mapping[str, float]]]
) -> Transition:
    """Takes the reports on a version: client, examples and metrics. The best candidate that wins is kept as best."""
    metric = state.target_metric
    if metric is None:
        return state, ()
    scores = {
        client: Score(examples=examples, value=metrics[metric.name])
        for client, examples, metrics in reports
        if math.isfinite(metrics.get(metric.name, math.nan))
    }
    if model.version == 0:
        return replace(state, looked=Looked(served=scores)), ()
    looked = state.looked
    found = None if looked is None else compare(looked.served, scores, state.settings.effective_quorum)
    if looked is None or found is None:
        return state, ()
    if looked.compared is not None and not metric.is_better(_gain(found), _gain(looked.compared)):
        return state, ()
    if not wins(found, metric):
        return replace(state, looked=replace(looked, compared=found)), ()
    return replace(state, looked=replace(looked, compared=found, winner=model)), (StoreBest(model),)


def compare(served: Mapping[str, Score], candidate: Mapping[str, Score], least: int) -> Comparison | None:
    """Returns what both models are worth on the holdouts of the edges that have measured both.

    Each edge counts with its examples. Null if they are fewer than ``least``.
    """
    both = sorted(served.keys() & candidate.keys())
    examples = sum(served[client].examples for client in both)
    if len(both) < max(1, least) or not examples:
        return None
    before = mean_of(served[client] for client in both)
    after = mean_of(Score(examples=served[client].examples, value=candidate[client].value) for client in both)
    return Comparison(before=before, after=after, edges=len(both), examples=examples)


def mean_of(scores: Iterable[Score]) -> float:
    """Returns the mean of the scores of edges, each with the weight of its examples, of which there is one at least."""
    scores = tuple(scores)
    return sum(one.examples * one.value for one in scores) / sum(one.examples for one in scores)


def wins(found: Comparison, metric: MetricDeclaration) -> bool:
    """Whether the candidate takes the place of the served model: only if it is better, not if it is as good."""
    return metric.is_better(found.after, found.before)


def _gain(found: Comparison) -> float:
    return found.after - found.before


def progress_text(state: Run, now: float, begins_at: str) -> str | None:
    """Says what is done with the served model; null of a run that is no look. ``begins_at``: when the look begins."""
    look = state.settings.look
    if look is None:
        return None
    served = f"serves version {look.served}"
    if state.ended:
        return served
    if is_held(state, now):
        return f"{served}; next look at {begins_at}"
    if not state.begun:
        return f"{served}; waits for edges to measure it"
    if state.looked is None:
        return f"{served}; measures it on the edges' data"
    return f"{served}; {'measures' if isinstance(state.phase, Evaluating) else 'trains'} a candidate to replace it"
