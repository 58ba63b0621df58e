"""A worker process: trains, evaluates and predicts on behalf of the edges of a fleet (``python -m fl_edge.worker``).

Three threads: the main one works off the jobs; one receives frames, so that a cancel is seen in the middle
of a job and the end of the parent ends the worker at once; one predicts, so that nobody waits behind
training.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn, assert_never, cast

import numpy as np

from fl_edge.errors import (
    CancelledError,
    DataMissingError,
    DivergedError,
    EdgeError,
    PayloadError,
    UnknownTaskError,
)
from fl_edge.jobs import (
    Cancel,
    Do,
    Done,
    Evaluate,
    Evaluated,
    Failed,
    ForgetModel,
    FromWorker,
    Initial,
    Initialised,
    Job,
    KeepModel,
    Load,
    Loaded,
    Outcome,
    Predict,
    Predicted,
    Ready,
    ToWorker,
    Train,
    Trained,
    Unusable,
    read_frame,
    write_frame,
)
from fl_edge.tasks import load_task
from fl_shared.messages import UpdateMetrics
from fl_shared.tensors import WIRE_DTYPE, Vector

if TYPE_CHECKING:
    from torch import nn

    from fl_edge.tasks.task import Task

MAX_MESSAGE: Final = 1000
"""Characters; the wire takes no longer ones (``messages.Text``)."""


class Worker:
    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO, data_dir: Path | None, device: str) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._writing = threading.Lock()
        self._data_dir = data_dir
        self._device = device
        self._jobs: SimpleQueue[Do] = SimpleQueue()
        self._predictions: SimpleQueue[Do | KeepModel | ForgetModel] = SimpleQueue()
        self._open: dict[int, threading.Event] = {}

    def run(self) -> int:
        """Work until the parent hangs up, which ends the process. Returns only if it cannot work at all."""
        # First of all, so that a parent that dies while torch is being imported is noticed, too.
        threading.Thread(target=self._receive, name="receiver", daemon=True).start()
        try:
            import torch

            from fl_edge.training import settle_torch

            settle_torch()
            torch.zeros(1, device=self._device)
        except ImportError as error:
            self._send(Unusable(f"torch cannot be imported ({error}): pip install 'fl-mqtt[edge]'"))
            return 1
        except Exception as error:  # torch raises several kinds for a device that is not there
            self._send(Unusable(f"--device {self._device} cannot be used: {error}"))
            return 1
        threading.Thread(target=self._predict, name="predictor", daemon=True).start()
        self._send(Ready())
        while True:
            do = self._jobs.get()
            cancelled = self._open[do.id]
            self._answer(do, partial(self._perform, cancelled=cancelled.is_set))
            del self._open[do.id]

    def _receive(self) -> NoReturn:
        try:
            while (frame := cast(ToWorker | None, read_frame(self._incoming))) is not None:
                match frame:
                    case Do(job=Predict()) | KeepModel() | ForgetModel():
                        self._predictions.put(frame)
                    case Do(id=number):
                        self._open[number] = threading.Event()
                        self._jobs.put(frame)
                    case Cancel(id=number):
                        if number in self._open:
                            self._open[number].set()
                    case _:
                        assert_never(frame)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def _send(self, frame: FromWorker) -> None:
        try:
            with self._writing:
                write_frame(self._outgoing, frame)
        except OSError:  # the parent is gone
            os._exit(0)

    def _answer(self, do: Do, perform: Callable[[Job], Outcome]) -> None:
        started = time.perf_counter()
        outcome: Outcome
        try:
            outcome = perform(do.job)
        except Exception as error:
            outcome = _failure(error)
        self._send(Done(do.id, outcome, time.perf_counter() - started))

    def _perform(self, job: Job, cancelled: Callable[[], bool]) -> Outcome:
        from fl_edge import training

        if cancelled():
            raise CancelledError("cancelled before it began")
        task = load_task(job.task)
        match job:
            case Load():
                manifest = training.manifest_in(task, task.model(0))
                if job.partition is None:
                    return Loaded(0, 0, manifest)
                data = task.load(job.partition, self._data_dir)
                return Loaded(len(data.train), 0 if data.holdout is None else len(data.holdout), manifest)
            case Initial(seed=seed):
                manifest, vector = training.initial(task, seed)
                return Initialised(manifest, _bytes(vector))
            case Train():
                return self._train(task, job, cancelled)
            case Evaluate():
                return self._evaluate(task, job)
            case Predict():
                raise AssertionError("predictions have a thread of their own")
            case _:
                assert_never(job)

    def _train(self, task: Task, job: Train, cancelled: Callable[[], bool]) -> Trained:
        from fl_edge import training

        data = task.load(job.partition, self._data_dir)
        if job.base is None or job.manifest is None:
            manifest, vector = training.initial(task, job.settings.seed)
            return Trained(manifest, _bytes(vector), len(data.train), 0, 0.0, UpdateMetrics())
        update = training.train_update(
            task,
            data,
            _vector(job.base),
            job.manifest,
            job.settings,
            job.round,
            job.client,
            cancelled,
            self._device,
        )
        return Trained(
            job.manifest, _bytes(update.delta), update.examples, update.steps, update.seconds, update.metrics
        )

    def _evaluate(self, task: Task, job: Evaluate) -> Evaluated:
        from fl_edge import training

        if job.split == "test":
            examples = task.load_test(self._data_dir)
        else:
            if job.partition is None:
                raise ValueError("split: holdout, but no partition was named")
            holdout = task.load(job.partition, self._data_dir).holdout
            if holdout is None:
                raise ValueError("split: holdout, but nothing of the part is held out")
            examples = holdout
        scores = training.evaluate(task, _vector(job.model), job.manifest, examples, self._device)
        return Evaluated(scores.examples, scores.loss, scores.accuracy, dict(scores.metrics))

    def _predict(self) -> None:
        """The predictor's thread. A model is built for the first request that needs it."""
        kept: dict[tuple[str, str], KeepModel] = {}
        built: dict[tuple[str, str], nn.Module] = {}
        while True:
            frame = self._predictions.get()
            match frame:
                case KeepModel(task=task, digest=digest):
                    kept[task, digest] = frame
                case ForgetModel(task=task, digest=digest):
                    kept.pop((task, digest), None)
                    built.pop((task, digest), None)
                case Do():
                    self._answer(frame, lambda job: self._predicted(cast(Predict, job), kept, built))
                case _:
                    assert_never(frame)

    def _predicted(
        self,
        job: Predict,
        kept: dict[tuple[str, str], KeepModel],
        built: dict[tuple[str, str], nn.Module],
    ) -> Predicted:
        from fl_edge import training

        task, key = load_task(job.task), (job.task, job.digest)
        if key not in built:
            model = kept[key]
            built[key] = training.model_from(task, _vector(model.weights), model.manifest, self._device)
        probabilities = task.predict(built[key], job.payload)
        if not all(math.isfinite(probability) for probability in probabilities.values()):
            raise DivergedError("the model answers with numbers that are not finite")
        return Predicted(max(probabilities, key=probabilities.__getitem__), probabilities)


def _failure(error: Exception) -> Failed:
    message = (str(error) or type(error).__name__)[:MAX_MESSAGE]
    match error:
        case CancelledError():
            return Failed("cancelled", message)
        case DataMissingError():
            return Failed("data-missing", message)
        case PayloadError():
            return Failed("bad-payload", message)
        case UnknownTaskError():
            return Failed("unknown-task", message)
        case EdgeError() | ValueError():
            return Failed("failed", message)
        case _:
            # Not one of ours, so somebody will want to see where it came from.
            traceback.print_exception(error)
            return Failed("failed", f"{type(error).__name__}: {message}"[:MAX_MESSAGE])


def _vector(data: bytes) -> Vector:
    """A copy, since torch wants to be able to write."""
    if len(data) % WIRE_DTYPE.itemsize:
        raise ValueError(f"weights of {len(data)} bytes, expected a multiple of {WIRE_DTYPE.itemsize}")
    return np.frombuffer(data, dtype=WIRE_DTYPE).astype(np.float32)


def _bytes(vector: Vector) -> bytes:
    return vector.astype(WIRE_DTYPE, copy=False).tobytes()


def main() -> int:
    parser = argparse.ArgumentParser(prog="fl_edge.worker", description="Started by fl-edge; not for people.")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    incoming, outgoing = os.dup(0), os.dup(1)
    # What a library prints must not get between the frames, nor may one read them.
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    worker = Worker(os.fdopen(incoming, "rb"), os.fdopen(outgoing, "wb"), options.data, options.device)
    return worker.run()


if __name__ == "__main__":
    sys.exit(main())
