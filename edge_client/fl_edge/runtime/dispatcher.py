"""Runs the jobs of sessions and predictors in the worker pool, and turns their results into events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

from fl_edge.messaging.model_store import FetchedModel
from fl_edge.prediction.predictor import Answer
from fl_edge.session import effects, events
from fl_edge.session.state import Fault
from fl_edge.session.work import EvaluationScores
from fl_edge.storage.label_counts_file import LabelCountsFile
from fl_edge.workers import jobs, protocol
from fl_edge.workers.pool import Pool
from fl_shared.protocol.messages import Partition
from fl_shared.transfer.upload import FinishedUpdate

USER_ERRORS: Final[Mapping[jobs.FailureKind, Fault]] = {
    "data-missing": "run",  # the edge may have those of another task
    "data-corrupt": "data",
    "data-mismatch": "either",
    "other-model": "run",
    "unknown-task": "run",
    "task-options": "run",
    "unusable-model": "run",
    "no-worker": "run",
}
"""The failures whose cause the user must fix, and what is wrong."""
DATA_OR_TASK: Final = "the data do not fit the task, or the task cannot be used here"
TOLD: Final[Mapping[jobs.FailureKind, str]] = {
    "budget-spent": "its privacy budget for single examples is spent",
    "unmaskable": "the update cannot be masked",
}
"""What an edge says of failures if it must say nothing of its data. Of the others it says what the user must fix."""


@dataclass(frozen=True, slots=True)
class JobOwner:
    """The owner of a job in the pool: a job of the session of ``client``, or a prediction.

    ``job`` is ``None`` for a prediction.
    """

    client: str
    job: int | None
    base: str | None = None
    """Digest of the base that is trained from; ``None`` in round 0, and for jobs that do not train."""


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """The answer of a prediction job, whose ``id`` is the one that `Dispatcher.predict` returned.

    It took ``seconds`` of processor time.
    """

    client: str
    id: int
    answer: Answer
    seconds: float


class JobRunner(Protocol):
    """Does the jobs of sessions: in a pool of workers (`Dispatcher`), or, of a region, in a round of its edges."""

    def load(self, client: str, effect: effects.Load) -> None:
        """Starts to load a partition."""

    def train(
        self,
        client: str,
        effect: effects.Train,
        base: FetchedModel | None,
        companions: Sequence[FetchedModel] = (),
        own: Mapping[str, memoryview] | None = None,
        masking: jobs.Masking | None = None,
    ) -> None:
        """Starts to train from ``base``, or to create the initial weights if it is ``None``."""

    def personalize(
        self, client: str, effect: effects.Personalize, model: FetchedModel, own: Mapping[str, memoryview]
    ) -> None:
        """Starts to train a model of the edge's own from ``model``."""

    def evaluate(
        self,
        client: str,
        effect: effects.Evaluate,
        model: FetchedModel,
        local: protocol.CacheModel | None = None,
    ) -> None:
        """Starts to evaluate ``model``."""

    def predict(
        self,
        client: str,
        task: str,
        model: FetchedModel | protocol.CacheModel,
        payload: bytes,
        asker: str | None,
        partition: Partition | None,
        local: protocol.CacheModel | None = None,
    ) -> int:
        """Starts a prediction; returns its id."""

    def cancel(self, client: str, job: int) -> None:
        """Cancels a job; a result that still comes is ignored."""

    def job_done(
        self, result: jobs.JobResult, now: float
    ) -> tuple[str, events.Event | PredictionResult] | None:
        """Returns the client that a result of the pool belongs to, and what it means; ``None`` if it was cancelled."""


class Dispatcher:
    """Starts jobs in the pool, and returns their results to the edges that own them.

    It is not thread-safe: one thread starts jobs and hands in their results.
    """

    def __init__(self, pool: Pool, label_counts: LabelCountsFile) -> None:
        """``label_counts`` gets the label counts of each partition that has been loaded."""
        self._pool = pool
        self._label_counts = label_counts
        self._owners: dict[int, JobOwner] = {}
        self._pool_ids: dict[tuple[str, int], int] = {}

    def load(self, client: str, effect: effects.Load) -> None:
        """Starts to load a partition for the session of ``client``."""
        self._track(
            JobOwner(client, effect.job),
            self._pool.load(client, effect.task, effect.partition, effect.run_weights),
        )

    def train(
        self,
        client: str,
        effect: effects.Train,
        base: FetchedModel | None,
        companions: Sequence[FetchedModel] = (),
        own: Mapping[str, memoryview] | None = None,
        masking: jobs.Masking | None = None,
    ) -> None:
        """Starts to train from ``base``, or to create the initial weights if it is ``None``.

        ``companions`` of the base are for the correction; ``own``: the vectors that the edge has kept. ``masking``:
        null if the update is not masked.
        """
        selected = effect.selected
        pool_id = self._pool.train(
            client,
            selected.task,
            effect.partition,
            None if base is None else _cache_frame(base),
            selected.training,
            selected.round,
            selected.encoding,
            selected.correction,
            {companion.name: _cache_frame(companion) for companion in companions},
            jobs.Vectors.of(own) if own else None,
            masking=masking,
            spent=effect.spent,
        )
        self._track(JobOwner(client, effect.job, None if base is None else base.digest), pool_id)

    def personalize(
        self,
        client: str,
        effect: effects.Personalize,
        model: FetchedModel,
        own: Mapping[str, memoryview],
    ) -> None:
        """Starts to train a model of the edge's own from ``model``."""
        announced = effect.announced
        assert announced.training is not None
        pool_id = self._pool.train(
            client, announced.task, effect.partition, _cache_frame(model), announced.training, announced.round + 1,
            own=jobs.Vectors.of(own) if own else None, personal=True,
        )  # fmt: skip
        self._track(JobOwner(client, effect.job, model.digest), pool_id)

    def evaluate(
        self,
        client: str,
        effect: effects.Evaluate,
        model: FetchedModel,
        local: protocol.CacheModel | None = None,
    ) -> None:
        """Starts to evaluate ``model`` for the session of ``client``, with its ``local`` part if there is one."""
        pool_id = self._pool.evaluate(
            client,
            effect.task,
            effect.split,
            effect.partition,
            _cache_frame(model),
            local,
        )
        self._track(JobOwner(client, effect.job), pool_id)

    def predict(
        self,
        client: str,
        task: str,
        model: FetchedModel | protocol.CacheModel,
        payload: bytes,
        asker: str | None,
        partition: Partition | None,
        local: protocol.CacheModel | None = None,
    ) -> int:
        """Starts a prediction for the predictor of ``client``; returns the id of its `PredictionResult`.

        ``local``: the part of the model that is the edge's own.
        """
        frame = _cache_frame(model) if isinstance(model, FetchedModel) else model
        pool_id = self._pool.predict(task, frame, payload, asker, client, partition, local)
        self._owners[pool_id] = JobOwner(client, None)
        return pool_id

    def cancel(self, client: str, job: int) -> None:
        """Cancels a session's job; a result that still arrives is ignored."""
        pool_id = self._pool_ids.pop((client, job), None)
        if pool_id is not None:
            self._owners.pop(pool_id, None)
            self._pool.cancel(pool_id)

    def job_done(
        self, result: jobs.JobResult, now: float
    ) -> tuple[str, events.Event | PredictionResult] | None:
        """Returns the client that a result belongs to, and the result as an event or as a `PredictionResult`.

        Returns ``None`` if the job was cancelled. The label counts of a loaded partition are written to their
        file.
        """
        owner = self._owners.pop(result.id, None)
        if owner is None:
            return None
        if owner.job is None:
            return owner.client, PredictionResult(
                owner.client, result.id, _answer(result.outcome), result.seconds
            )
        self._pool_ids.pop((owner.client, owner.job), None)
        loaded = result.outcome
        if isinstance(loaded, jobs.LoadOutcome):
            self._label_counts.append(owner.client, loaded.examples, loaded.holdout_examples, loaded.labels)
        return owner.client, _event(owner, owner.job, result.outcome, now)

    def _track(self, owner: JobOwner, pool_id: int) -> None:
        assert owner.job is not None
        self._owners[pool_id] = owner
        self._pool_ids[owner.client, owner.job] = pool_id


def _cache_frame(model: FetchedModel) -> protocol.CacheModel:
    weights = model.weights
    return protocol.CacheModel(model.digest, weights.manifest, model.weights_memory, weights.encoding)


def _answer(outcome: jobs.JobOutcome) -> Answer:
    match outcome:
        case jobs.PredictOutcome(answer=answer):
            return Answer(answer)
        case jobs.ExampleOutcome(example=example):
            hint = "" if example is None else f", for example {json.dumps(example):.200}"
            return Answer(error=f"the request is empty; expected an input of the task{hint}", example=example)
        case jobs.FailureOutcome(message=message):
            return Answer(error=message)
        case _:
            raise AssertionError(f"a prediction has the outcome {type(outcome).__name__}")


def _event(owner: JobOwner, job: int, outcome: jobs.JobOutcome, now: float) -> events.Event:
    match outcome:
        case jobs.LoadOutcome():
            return events.PartitionLoaded(
                now,
                job,
                outcome.examples,
                outcome.holdout_examples,
                outcome.manifest.digest,
                outcome.declared,
                tuple(outcome.abilities),
                outcome.manifest.values,
                tuple(outcome.local),
            )
        case jobs.TrainOutcome(masked=masked):
            update = FinishedUpdate(
                base=owner.base,
                digest=outcome.digest,
                examples=outcome.examples,
                steps=outcome.steps,
                seconds=outcome.seconds,
                metrics=outcome.metrics,
                sections=outcome.update_sections(),
                plan=None if masked is None else masked.plan,
            )
            own = {} if outcome.own is None else outcome.own.parts()
            body = None if masked is None else masked.body
            return events.Trained(now, job, update, own, body, outcome.charges, outcome.epsilon)
        case jobs.EvaluateOutcome():
            scores = EvaluationScores(
                outcome.examples, outcome.loss, outcome.task_metrics, outcome.confusion, outcome.declared
            )
            return events.ModelEvaluated(now, job, scores)
        case jobs.FailureOutcome(kind=kind, message=message):
            fault = USER_ERRORS.get(kind)
            told = TOLD.get(kind, DATA_OR_TASK if fault else "loading or training failed") + events.SEE_LOG
            is_spent = kind == "budget-spent"
            return events.JobFailed(now, job, message, fault is not None, fault or "run", told, is_spent)
        case jobs.PredictOutcome() | jobs.ExampleOutcome():
            raise AssertionError(f"a session's job has the outcome {type(outcome).__name__}")
        case _:
            assert_never(outcome)
