"""Evaluations of committed versions, which go on while the next rounds run. Pure.

A round's line is written to the history once its version has been evaluated, in the order of the rounds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from fl_aggregator.round.effects import Effect, PublishResult, StoreBest, Transition, WriteHistory
from fl_aggregator.round.events import ConfusionCounts, Evaluated
from fl_aggregator.round.state import PendingEvaluation, Run, Summary
from fl_aggregator.round.summary import weighted_means
from fl_shared.protocol.messages import MAX_METRICS, ModelReference, Split

MAX_EVALUATION_SECONDS: Final = 120.0
"""Seconds that a version's evaluation may take: an edge that hangs must not delay the end of a run."""


def request_evaluation(state: Run, model: ModelReference, now: float) -> tuple[Run, Split | None]:
    """Decides on which split a new version is evaluated, if at all, and remembers which edges were asked.

    Every version whose number is a multiple of ``evaluate_every`` is evaluated, and always the last one. The
    split is ``test`` if an edge with the role ``evaluate`` is there, otherwise ``holdout``; null if no edge
    can evaluate. An edge that is asked to evaluate a newer version may skip this one.
    """
    settings = state.settings
    if model.version == 0 or (model.version % settings.evaluate_every and model.version != settings.rounds):
        return state, None
    split: Split = "test"
    evaluators = _available_evaluators(state, split, now)
    if not evaluators:
        split = "holdout"
        evaluators = _available_evaluators(state, split, now) if settings.holdout > 0 else evaluators
    if not evaluators:
        return state, None
    evaluation = PendingEvaluation(
        model=model,
        split=split,
        requested_at=now,
        deadline=now + min(settings.deadline, MAX_EVALUATION_SECONDS),
        awaited=evaluators,
    )
    return replace(state, evaluations=(*state.evaluations, evaluation)), split


def _available_evaluators(state: Run, split: Split, now: float) -> frozenset[str]:
    """Returns the edges that may report on a split.

    An edge that is offline within its grace counts: the announcement is retained, so it finds it when it
    returns.
    """
    return frozenset(
        name
        for name, client in state.roster.clients.items()
        if (client.evaluates if split == "test" else client.ready(state.manifest))
        and not state.roster.is_absent(name, now, state.settings.grace)
    )


def receive_report(state: Run, event: Evaluated) -> Run:
    """Adds an edge's report to the evaluation of its version; older versions no longer wait for that edge.

    A report with 0 examples says that the edge has nothing to report. Reports from another session, or about
    a model that the run does not know, change nothing.
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
        awaited = evaluation.awaited - {event.client}
        if event.examples and (evaluation.model, evaluation.split) == (model, event.split):
            return replace(evaluation, awaited=awaited, results=(*evaluation.results, event))
        return replace(evaluation, awaited=awaited)

    return replace(state, evaluations=tuple(with_report(e) for e in state.evaluations))


def advance(state: Run, now: float, *, close_all: bool = False) -> Transition:
    """Closes evaluations that no edge is left to report on, and writes the history as far as it is complete.

    Evaluations also close at their deadline and, with ``close_all``, at once.
    """
    effects: list[Effect] = []
    for evaluation in state.evaluations:
        absent = {n for n in evaluation.awaited if state.roster.is_absent(n, now, state.settings.grace)}
        if close_all or not evaluation.awaited - absent or now >= evaluation.deadline:
            state, closing = _close_evaluation(state, evaluation, now)
            effects += closing
    pending = {evaluation.model.version for evaluation in state.evaluations}
    written = 0
    for summary in state.pending_summaries:
        if summary.model is not None and summary.model.version in pending:
            break
        effects.append(WriteHistory(summary))
        written += 1
    if written:
        state = replace(state, pending_summaries=state.pending_summaries[written:])
    return state, tuple(effects)


def _close_evaluation(state: Run, evaluation: PendingEvaluation, now: float) -> Transition:
    remaining = tuple(e for e in state.evaluations if e is not evaluation)
    state = replace(state, evaluations=remaining)
    if not evaluation.results:
        return state, ()
    reports = sorted(evaluation.results, key=lambda report: report.client)
    examples = sum(report.examples for report in reports)
    accuracy = sum(report.examples * report.accuracy for report in reports) / examples
    loss = sum(report.examples * report.loss for report in reports) / examples
    metrics = {"accuracy": accuracy, "evaluated_examples": float(examples)}
    if math.isfinite(loss):  # the sum of a diverged model's losses may be too large for a float
        metrics["loss"] = loss
    effects: list[Effect] = []
    summaries = []
    for summary in state.pending_summaries:
        if summary.model == evaluation.model:
            summary = _with_evaluation(
                summary,
                metrics,
                _task_metrics(reports),
                _sum_confusion(reports),
                now - evaluation.requested_at,
            )
            effects.append(PublishResult(summary))
        summaries.append(summary)
    if state.best_accuracy is None or accuracy > state.best_accuracy:
        state = replace(state, best_accuracy=accuracy)
        effects.append(StoreBest(evaluation.model))
    target = state.settings.target_accuracy
    newest = evaluation.model.version >= state.metrics.get("version", 0)
    state = replace(
        state,
        pending_summaries=tuple(summaries),
        metrics={"version": float(evaluation.model.version), **metrics} if newest else state.metrics,
        target_reached=state.target_reached or (target is not None and accuracy >= target),
    )
    return state, tuple(effects)


def _sum_confusion(reports: list[Evaluated]) -> ConfusionCounts | None:
    """Adds up the confusion matrices of the reports; null if there are none, or their classes differ."""
    matrices = [report.confusion for report in reports if report.confusion is not None]
    if not matrices or any(matrix.labels != matrices[0].labels for matrix in matrices):
        return None
    summed = zip(*(matrix.counts for matrix in matrices), strict=True)
    return ConfusionCounts(
        matrices[0].labels, tuple([tuple(map(sum, zip(*rows, strict=True))) for rows in summed])
    )


def _task_metrics(reports: list[Evaluated]) -> dict[str, float]:
    """Returns the means of the task's own metrics, each weighted by the examples of the edges that report it."""
    return weighted_means([(report.examples, report.metrics) for report in reports])


def _with_evaluation(
    summary: Summary,
    metrics: dict[str, float],
    task_metrics: dict[str, float],
    confusion: ConfusionCounts | None,
    seconds: float,
) -> Summary:
    """Adds an evaluation to a summary; a metric of the task never replaces one of ours, and may find no space."""
    merged = {**summary.metrics, **metrics}
    for name, value in task_metrics.items():
        if name not in merged and len(merged) < MAX_METRICS:
            merged[name] = value
    return replace(
        summary,
        confusion=confusion,
        metrics=merged,
        seconds={**summary.seconds, "evaluating": round(seconds, 6)},
    )
