"""A worker process: trains, evaluates and predicts on behalf of the edges of a fleet
(``python -m fl_edge.workers.worker``).

It has three threads. The main thread does the jobs. One receives frames, so that a cancel is seen during a job,
and so that the end of the parent ends the worker at once. One predicts, so that a prediction does not wait for
training.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn, assert_never, cast

import numpy as np

from fl_edge.data import fresh
from fl_edge.errors import CancelledError
from fl_edge.session.privacy import NO_PRIVACY, OwnPrivacy
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.executor import Executor, TrainedUpdate
from fl_edge.training.factory import executor_for
from fl_edge.training.local_part import LOCAL, PERSONAL
from fl_edge.workers import job_log
from fl_edge.workers.cached_model import CachedModel
from fl_edge.workers.failures import failure_of
from fl_edge.workers.jobs import (
    EvaluateJob,
    EvaluateOutcome,
    ExampleOutcome,
    Job,
    JobOutcome,
    LoadJob,
    LoadOutcome,
    PredictJob,
    PredictOutcome,
    TrainJob,
    TrainOutcome,
)
from fl_edge.workers.masked_result import MaskedRound
from fl_edge.workers.private_result import PrivateResult
from fl_edge.workers.protocol import (
    CacheModel,
    CancelJob,
    EvictModel,
    FromWorker,
    JobFinished,
    Ready,
    RunJob,
    ToWorker,
    WorkerUnavailable,
    read_frame,
    write_frame,
)
from fl_edge.workers.torch_import import import_torch
from fl_edge.workers.training_result import ERROR, ResultBuffer, train_outcome
from fl_shared.protocol.messages import UpdateMetrics, primary_of
from fl_shared.system.shared_memory import MemoryPool
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Vector

_Models = Mapping[str, CachedModel]
"""The models that a job needs, by digest."""


class Worker:
    """Does the jobs that come through ``stream``.

    ``cold``: torch is imported with the first job, and not before; ``light``: never. ``privacy``: of the edges'
    data. ``wrap`` returns the executor that is used instead of a task's.
    """

    def __init__(
        self,
        stream: socket.socket,
        data_dir: Path | None,
        device: str,
        *,
        cold: bool,
        light: bool,
        privacy: OwnPrivacy = NO_PRIVACY,
        wrap: Callable[[Executor], Executor] = lambda executor: executor,
    ) -> None:
        self._stream = stream
        self._write_lock = threading.Lock()
        self._data_dir = data_dir
        self._device = device
        self._cold = cold or light
        self._light = light
        self._privacy = privacy
        self._wrap = wrap
        self._jobs: SimpleQueue[tuple[RunJob, _Models]] = SimpleQueue()
        self._predictions: SimpleQueue[tuple[RunJob, _Models]] = SimpleQueue()
        self._cancel_events: dict[int, threading.Event] = {}
        self._results = MemoryPool()
        self._data_changes = 0

    def run(self) -> int:
        """Works until the parent closes the socket, which ends the process. Returns 1 if it cannot work at all."""
        # It starts first, so that the end of the parent is noticed while torch is imported.
        threading.Thread(target=self._receive, name="receiver", daemon=True).start()
        error = None if self._cold else import_torch(self._device)
        if error is not None:
            self._send(WorkerUnavailable(error))
            return 1
        threading.Thread(target=self._prediction_loop, name="predictor", daemon=True).start()
        self._send(Ready())
        while True:
            run_job, models = self._jobs.get()
            if run_job.data_changes != self._data_changes:
                self._data_changes = run_job.data_changes
                executor_for.cache_clear()
                fresh.forget()
            cancelled = self._cancel_events[run_job.id]
            self._run_job(run_job, partial(self._perform, models=models, cancelled=cancelled.is_set))
            del self._cancel_events[run_job.id]

    def _receive(self) -> NoReturn:
        models: dict[str, CachedModel] = {}
        try:
            while (frame := cast(ToWorker | None, read_frame(self._stream))) is not None:
                match frame:
                    case CacheModel(digest=digest):
                        models[digest] = CachedModel(frame)
                    case EvictModel(digest=digest):
                        models.pop(digest, None)
                    case RunJob(id=number, job=job):
                        needed = {digest: models[digest] for digest in _model_digests(job)}
                        if isinstance(job, PredictJob):
                            self._predictions.put((frame, needed))
                        else:
                            self._cancel_events[number] = threading.Event()
                            self._jobs.put((frame, needed))
                    case CancelJob(id=number):
                        if number in self._cancel_events:
                            self._cancel_events[number].set()
                    case _:
                        assert_never(frame)
        except BaseException:
            _end_after_error()
        os._exit(0)

    def _send(self, frame: FromWorker) -> None:
        try:
            with self._write_lock:
                write_frame(self._stream, frame)
        except OSError:  # the parent is gone
            os._exit(0)

    def _run_job(self, run_job: RunJob, perform: Callable[[Job], JobOutcome]) -> None:
        started = time.thread_time()
        job_log.CLIENT.set(run_job.job.client)
        outcome: JobOutcome
        try:
            outcome = perform(run_job.job)
        except BaseException as error:  # a task may also call sys.exit
            outcome = failure_of(error)
        self._send(JobFinished(run_job.id, outcome, time.thread_time() - started))

    def _perform(self, job: Job, models: _Models, cancelled: Callable[[], bool]) -> JobOutcome:
        if cancelled():
            raise CancelledError("cancelled before it started")
        executor = self._executor(job.task)
        match job:
            case LoadJob(client=client, partition=partition, run_weights=run_weights, test=test):
                if run_weights is not None:
                    executor.compare(run_weights)
                found = executor.summarize(client, partition)
                if test:
                    executor.load_test()
                return LoadOutcome(
                    found.examples,
                    found.holdout_examples,
                    found.manifest,
                    found.labels,
                    executor.declared_metrics(),
                    list(executor.abilities()),
                    list(found.local),
                )
            case TrainJob():
                return self._train(executor, job, models, cancelled)
            case EvaluateJob(split=split, client=client, partition=partition, digest=digest, local=local):
                model = models[digest]
                own = None if local is None else models[local].weights()
                scores = executor.evaluate(
                    model.weights(), model.model.manifest, split, client, partition, own
                )
                # The distribution of classes in a holdout is private; in the test split it is public.
                confusion = scores.confusion if split == "test" else None
                return EvaluateOutcome(
                    scores.examples, scores.loss, dict(scores.metrics), confusion, executor.declared_metrics()
                )
            case PredictJob():
                raise AssertionError("predictions have a thread of their own")
            case _:
                assert_never(job)

    def _executor(self, task: str) -> Executor:
        hides = self._privacy.examples is not None
        return self._wrap(
            executor_for(task, self._data_dir, self._device, light=self._light, hides_examples=hides)
        )

    def _train(
        self, executor: Executor, job: TrainJob, models: _Models, cancelled: Callable[[], bool]
    ) -> TrainOutcome:
        result = ResultBuffer(self._results)
        if job.base is None:
            examples = executor.summarize(job.client, job.partition).examples
            manifest = executor.initial_weights(job.settings.seed, result.allocate)
            first = TrainedUpdate(result.vector, examples, 0, 0.0, UpdateMetrics())
            return train_outcome(job, manifest, result, first)
        model = models[job.base]
        manifest, weights = model.model.manifest, model.weights()
        model.check_finite()
        masked = (
            None if job.masking is None else MaskedRound(job.masking, job.client, job.partition, manifest)
        )
        kept = {} if job.own is None else job.own.parts()
        vectors = {name: FLOAT32.decode(data) for name, data in kept.items()}
        local, error = vectors.pop(LOCAL, None), vectors.pop(ERROR, None)
        private = PrivateResult(self._privacy, job)
        update = executor.train(
            weights,
            manifest,
            job.partition,
            job.settings,
            job.round,
            job.client,
            cancelled,
            result.allocate if masked is None else _private,
            _correction_request(job, models, vectors),
            local,
            private.sgd,
        )
        update = private.noised(update)
        if job.personal:
            own = {name: one for name, one in update.own.items() if name == LOCAL}
            update = replace(update, own={**own, PERSONAL: model.weights() + update.delta})
        if masked is not None:
            primary = primary_of(executor.declared_metrics()).name
            outcome = masked.outcome(update, primary, self._results, cancelled)
        else:
            outcome = train_outcome(job, manifest, result, update, error)
        return private.charged(outcome)

    def _prediction_loop(self) -> NoReturn:
        """Runs the predictor thread."""
        try:
            while True:
                run_job, models = self._predictions.get()
                self._run_job(run_job, partial(self._perform_prediction, models=models))
        except BaseException:
            _end_after_error()

    def _perform_prediction(self, job: Job, models: _Models) -> JobOutcome:
        assert isinstance(job, PredictJob)
        model = models[job.digest]
        executor = self._executor(job.task)
        if not job.payload:
            return ExampleOutcome(executor.example_request())
        whose = job.task, job.client, job.partition
        made_with, predict = model.predictors.get(whose, (None, None))
        if predict is None or made_with != job.local:
            local = None if job.local is None else models[job.local].weights()
            predict = executor.make_predictor(
                model.weights(), model.model.manifest, job.client, job.partition, local
            )
            model.predictors[whose] = job.local, predict
        return PredictOutcome(predict(job.payload))


def _end_after_error() -> NoReturn:
    """Ends the whole process, since its parent would wait for ever for what a dead thread should do."""
    try:
        traceback.print_exc()
    finally:
        os._exit(1)


def _model_digests(job: Job) -> tuple[str, ...]:
    match job:
        case TrainJob(base=base, companions=companions):
            return (*([] if base is None else [base]), *companions.values())
        case EvaluateJob(digest=digest, local=local) | PredictJob(digest=digest, local=local):
            return (digest,) if local is None else (digest, local)
        case LoadJob():
            return ()
        case _:
            assert_never(job)


def _private(values: int) -> Vector:
    """Memory that no other process shares, for an update without its masks."""
    return np.empty(values, np.float32)


def _correction_request(
    job: TrainJob, models: _Models, own: Mapping[str, Vector]
) -> CorrectionRequest | None:
    if job.correction is None:
        return None
    published = {name: models[digest].weights() for name, digest in job.companions.items()}
    return CorrectionRequest(job.correction.name, job.correction.settings, published, own)


def main(wrap: Callable[[Executor], Executor] = lambda executor: executor) -> int:
    """Runs a worker on the socket that its command line names; returns the exit code. ``wrap``: see `Worker`."""
    parser = argparse.ArgumentParser(
        prog="fl_edge.workers.worker", description="Started by fl-edge; not for direct use."
    )
    parser.add_argument("socket", type=int, help="file descriptor of the socket to the parent")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cold", action="store_true", help="import torch only when a job needs it")
    parser.add_argument("--light", action="store_true", help="never use torch")
    parser.add_argument("--log-format", default="text")
    parser.add_argument("--privacy", type=OwnPrivacy.from_text, default=NO_PRIVACY)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    job_log.start(options.log_format)
    # Child processes of a library must not keep the connection open after this process has ended.
    os.set_inheritable(options.socket, False)
    os.dup2(2, 1)
    stream = socket.socket(fileno=options.socket)
    # What a task forks must neither send frames nor keep the connection open after this process has ended.
    os.register_at_fork(after_in_child=stream.close)
    return Worker(
        stream,
        options.data,
        options.device,
        cold=options.cold,
        light=options.light,
        privacy=options.privacy,
        wrap=wrap,
    ).run()


if __name__ == "__main__":
    sys.exit(main())
