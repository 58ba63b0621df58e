"""Evaluations of committed versions, which go on while the next rounds run. Pure.

A round's line is written to the history once its version has been evaluated, in the order of the rounds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from fl_aggregator.round import looking, personalization
from fl_aggregator.round.effects import (
    Effect,
    PublishModel,
    PublishResult,
    StoreBest,
    Transition,
    WriteHistory,
)
from fl_aggregator.round.events import ConfusionCounts, Evaluated, Tallies
from fl_aggregator.round.persistent_map import PersistentMap
from fl_aggregator.round.state import PendingEvaluation, Run, Summary
from fl_aggregator.round.summary import edges_metrics, edges_values, holdout_means, weighted_means
from fl_shared.protocol.messages import LOSS, STANDARD_ERROR, ModelReference, Split
from fl_shared.system.frozen import replace

MAX_EVALUATION_SECONDS: Final = 120.0
"""Seconds that a version's evaluation may take: an edge that hangs must not delay the end of a run."""

REGIONAL_EVALUATION_SECONDS: Final = 90.0
"""The same in a region, so that the run above has its metrics in time."""

EVALUATION_INTERVAL: Final = 5.0
"""Seconds from one evaluated version to the next without ``evaluate_every``: asynchronous runs make versions quickly,
and edges that evaluate each of them would do little else."""


def request_evaluation(
    state: Run, model: ModelReference, now: float, strategy_state: str | None = None
) -> tuple[Run, Split | None]:
    """Decides on which split a new version is evaluated, if at all, and remembers which edges were asked.

    Every version whose number is a multiple of ``evaluate_every`` is evaluated; if that is null, the first one
    `EVALUATION_INTERVAL` after the last that was evaluated; and always the last one. The split is ``test`` if an edge
    with the role ``evaluate`` is there, otherwise ``holdout``; null if no edge can evaluate. If a part of the model
    stays on the edges, only they have a whole one: ``holdout``. A look measures on holdouts only, and the served model
    (version 0), too. An edge that is asked to evaluate a newer version may skip this one. If edges say nothing of their
    own data, none is asked for its holdout; the tallies of the next masked round measure the version on all of them
    (`take_tallies`).
    """
    settings = state.settings
    look = settings.look is not None
    if (model.version == 0 and not look) or (
        model.version != settings.rounds and not _is_turn(state, model, now)
    ):
        return state, None
    split: Split = "test"
    evaluators = (
        PersistentMap[None]() if settings.keep_local or look else _available_evaluators(state, split, now)
    )
    if not evaluators and not settings.hides_edges:
        split = "holdout"
        evaluators = _available_evaluators(state, split, now) if settings.holdout > 0 else evaluators
    if not evaluators:
        return state, None
    evaluation = PendingEvaluation(
        model=model,
        split=split,
        requested_at=now,
        deadline=now + min(settings.deadline, _most_seconds(state)),
        awaited=evaluators,
        strategy_state=strategy_state,
    )
    if settings.evaluate_every is None:
        state = replace(state, next_evaluation=now + EVALUATION_INTERVAL)
    return replace(state, evaluations=(*state.evaluations, evaluation)), split


def _is_turn(state: Run, model: ModelReference, now: float) -> bool:
    every = state.settings.evaluate_every
    return now >= state.next_evaluation if every is None else model.version % every == 0


def _most_seconds(state: Run) -> float:
    return MAX_EVALUATION_SECONDS if state.settings.region is None else REGIONAL_EVALUATION_SECONDS


def _request_holdouts(state: Run, ended: PendingEvaluation, now: float) -> Transition:
    """Asks all training edges that are there for their holdouts, if the last version was measured on the test split.

    So the last line of the history says what the model is worth at each edge, not only at those of the last round.
    """
    version, settings = ended.model.version, state.settings
    is_last = version == state.version and state.is_done
    if (
        ended.split != "test"
        or not is_last
        or settings.holdout == 0
        or state.model is None
        or settings.hides_edges
    ):
        return state, ()
    awaited = _available_evaluators(state, "holdout", now)
    number = next((s.round for s in state.pending_summaries if s.model == state.model), None)
    if not awaited or number is None:
        return state, ()
    deadline = now + min(settings.deadline, MAX_EVALUATION_SECONDS)
    asked = replace(ended, split="holdout", requested_at=now, deadline=deadline, awaited=awaited, results=())
    served = None if ended.model == state.model else ended.model
    publish = PublishModel(number, state.model, "holdout", ended.strategy_state, served)
    return replace(state, evaluations=(*state.evaluations, asked)), (publish,)


def _available_evaluators(state: Run, split: Split, now: float) -> PersistentMap[None]:
    """Returns the edges that may report on a split.

    An edge that is offline within its grace counts: the announcement is retained, so it finds it when it
    returns.
    """
    return PersistentMap(
        (name, None)
        for name, client in state.roster.clients.items()
        if (client.evaluates if split == "test" else client.ready(state.manifest))
        and not state.roster.is_absent(name, now, state.settings.grace)
    )


def receive_report(state: Run, event: Evaluated) -> Run:
    """Adds an edge's report to the evaluation of its version; older versions no longer wait for that edge.

    A report with 0 examples says that the edge has nothing to report; one of its own model is kept, to be counted.
    Reports from another session, or about a model that the run does not know, change nothing.
    """
    client = state.roster.get(event.client)
    if event.version > state.version or client is None or client.session != event.session:
        return state
    model = ModelReference(version=event.version, digest=event.digest)
    if any(e.model.version == model.version and e.model != model for e in state.evaluations):
        return state

    def with_report(evaluation: PendingEvaluation) -> PendingEvaluation:
        if event.client not in evaluation.awaited or evaluation.model.version > event.version:
            return evaluation
        if evaluation.split == "personal" != event.split:
            return evaluation  # a late report on the same version; training takes longer
        awaited = evaluation.awaited.without(event.client)
        has_content = event.examples or event.split == "personal"
        if has_content and (evaluation.model, evaluation.split) == (model, event.split):
            return replace(evaluation, awaited=awaited, results=(*evaluation.results, event))
        return replace(evaluation, awaited=awaited)

    return replace(state, evaluations=tuple(with_report(e) for e in state.evaluations))


def advance(state: Run, now: float, *, close_all: bool = False) -> Transition:
    """Closes evaluations that no edge is left to report on, and writes the history as far as it is complete.

    Evaluations also close at their deadline and, with ``close_all``, at once.
    """
    effects: list[Effect] = []
    for evaluation in state.evaluations:
        if close_all or now >= _closes_at(state, evaluation):
            state, closing = _close_evaluation(state, evaluation, now)
            effects += closing
            if not close_all:
                state, asking = _request_holdouts(state, evaluation, now)
                effects += asking
    pending = {evaluation.model.version for evaluation in state.evaluations}
    if personalization.is_owed(state) and not close_all:
        pending.add(state.version)
    written = 0
    for summary in state.pending_summaries:
        if summary.model is not None and summary.model.version in pending:
            break
        if not close_all and _awaits_tallies(state, summary):
            break
        effects.append(WriteHistory(summary))
        written += 1
    if written:
        state = replace(state, pending_summaries=state.pending_summaries[written:])
    return state, tuple(effects)


def _awaits_tallies(state: Run, summary: Summary) -> bool:
    """Whether a version is still to be measured by the next round: by its tallies, or by the accuracies in it."""
    settings = state.settings
    return (
        (settings.dp_accuracy or (settings.masked and settings.dp is None))
        and settings.holdout > 0
        and summary.split is None
        and summary.model is not None
        and summary.model.version == state.version
        and not state.is_done
    )


def take_tallies(state: Run, base: ModelReference, tallies: Tallies) -> Transition:
    """Measures the base of a masked round by its tallies, unless the test split has measured it, or will."""
    means = holdout_means(state, tallies)
    if not means:
        return state, ()
    return _measure_base(state, base, {**means, "evaluated_examples": float(tallies.holdout)})


def take_accuracy(state: Run, base: ModelReference, accuracy: float, count: int) -> Transition:
    """Measures the base of a private round by the noisy mean of ``count`` edges' accuracies, as `take_tallies` does."""
    plan = state.settings.privacy
    assert plan is not None
    error = plan.mean_deviation / count
    return _measure_base(state, base, {state.primary.name: accuracy, STANDARD_ERROR: error})


def _measure_base(state: Run, base: ModelReference, metrics: Mapping[str, float]) -> Transition:
    if any(evaluation.model.version == base.version for evaluation in state.evaluations):
        return state, ()
    effects: list[Effect] = []
    summaries = []
    for summary in state.pending_summaries:
        if summary.model == base and summary.split is None:
            summary = replace(
                summary, metrics={**summary.metrics, **metrics}, split="holdout", first_served=None
            )
            effects.append(PublishResult(summary))
        summaries.append(summary)
    if not effects:
        return state, ()
    state, following = _measured(replace(state, pending_summaries=tuple(summaries)), base, "holdout", metrics)
    return state, (*effects, *following)


def _measured(state: Run, model: ModelReference, split: Split, metrics: Mapping[str, float]) -> Transition:
    """Remembers what a version is worth: whether it is the best, the newest measured, and as good as the target.

    The best of several noisy means would be the luckiest one. In a look, `looking` judges.
    """
    effects: tuple[Effect, ...] = ()
    value = metrics.get(state.primary.name)
    is_judged = state.settings.look is None and STANDARD_ERROR not in metrics
    if value is not None and is_judged and _is_best(state, value, split):
        state = replace(state, best=value, best_split=split)
        effects = (StoreBest(model),)
    newest = model.version >= state.metrics.get("version", 0)
    state = replace(
        state,
        metrics={"version": float(model.version), **metrics} if newest else state.metrics,
        split=split if newest else state.split,
        target_reached=state.target_reached or _reaches_target(state, metrics),
    )
    return state, effects


def due(state: Run) -> float:
    """Returns the run time at which `advance` closes the next evaluation, if only time passes; ∞ for never."""
    return min((_closes_at(state, evaluation) for evaluation in state.evaluations), default=math.inf)


def _closes_at(state: Run, evaluation: PendingEvaluation) -> float:
    last_absent_at = -math.inf
    for name in evaluation.awaited:
        last_absent_at = max(last_absent_at, state.roster.absent_at(name, state.settings.grace))
        if last_absent_at >= evaluation.deadline:  # as soon as one is present: it need not look at thousands
            return evaluation.deadline
    return last_absent_at


def _close_evaluation(state: Run, evaluation: PendingEvaluation, now: float) -> Transition:
    """Adds the reports to the round's summary: the metrics of the split that was asked first, and holdouts by edge."""
    if evaluation.split == "personal":
        return personalization.close(state, evaluation, now)
    remaining = tuple(e for e in state.evaluations if e is not evaluation)
    state = replace(state, evaluations=remaining)
    if not evaluation.results:
        return state, ()
    reports = sorted(evaluation.results, key=lambda report: report.client)
    found = [(report, _valid_metrics(state, report)) for report in reports]
    metrics = {
        **weighted_means([(report.examples, metrics) for report, metrics in found]),
        "evaluated_examples": float(sum(report.examples for report in reports)),
    }
    edges: dict[str, float] = {}
    if evaluation.split == "holdout":
        edges = edges_values(state, [(report.client, metrics) for report, metrics in found])
    effects: list[Effect] = []
    summaries = []
    is_second = False
    for summary in state.pending_summaries:
        if summary.model is not None and summary.model.version == evaluation.model.version:
            is_second = summary.split is not None
            if edges:
                overall = {**summary.metrics, **edges_metrics(state, edges)}
                version = evaluation.model.version
                summary = replace(summary, metrics=overall, edges=edges, edges_version=version)
            if not is_second:
                summary = _with_evaluation(summary, evaluation, reports, metrics, now)
            effects.append(PublishResult(summary))
        summaries.append(summary)
    state = replace(state, pending_summaries=tuple(summaries))
    if is_second:
        return state, tuple(effects)
    state, following = _measured(state, evaluation.model, evaluation.split, metrics)
    if state.settings.look is not None:
        of_edges = [(report.client, report.examples, metrics) for report, metrics in found]
        state, following = looking.judge(state, evaluation.model, of_edges)
    return state, (*effects, *following)


def _with_evaluation(
    summary: Summary,
    evaluation: PendingEvaluation,
    reports: list[Evaluated],
    metrics: Mapping[str, float],
    now: float,
) -> Summary:
    return replace(
        summary,
        metrics={**summary.metrics, **metrics},
        split=evaluation.split,
        confusion=_sum_confusion(reports),
        seconds={**summary.seconds, "evaluating": round(now - evaluation.requested_at, 6)},
    )


def _is_best(state: Run, value: float, split: Split) -> bool:
    """Whether a version is better than all before it. Values of two splits say nothing about each other.

    The test split is the better judge: once a version has been measured on it, no holdout decides.
    """
    if state.best is None or state.best_split is None:
        return True
    if split == state.best_split:
        return state.primary.is_better(value, state.best)
    return split == "test"


def _sum_confusion(reports: list[Evaluated]) -> ConfusionCounts | None:
    """Adds up the confusion matrices of the reports; null if there are none, or their classes differ."""
    matrices = [report.confusion for report in reports if report.confusion is not None]
    if not matrices or any(matrix.labels != matrices[0].labels for matrix in matrices):
        return None
    summed = zip(*(matrix.counts for matrix in matrices), strict=True)
    return ConfusionCounts(
        matrices[0].labels, tuple([tuple(map(sum, zip(*rows, strict=True))) for rows in summed])
    )


def _valid_metrics(state: Run, report: Evaluated) -> dict[str, float]:
    """Returns the loss of a report, and those of its metrics that the run has and whose value is possible."""
    declared = {
        metric.name: report.metrics[metric.name]
        for metric in state.declared or ()
        if metric.name in report.metrics and metric.contains(report.metrics[metric.name])
    }
    return {**declared, LOSS.name: report.loss}


def _reaches_target(state: Run, metrics: Mapping[str, float]) -> bool:
    target, metric = state.settings.parsed_target, state.target_metric
    if target is None or metric is None or metric.name not in metrics:
        return False
    return not metric.is_better(target.value, metrics[metric.name])
