"""The worker processes of a fleet, and the distribution of jobs among them. Imports no torch, to stay small.

Any worker can do the job of any edge. Jobs wait in one queue for an idle worker; predictions do not wait for
an idle one, and their askers take turns. If a worker dies, its jobs fail, and it is replaced after a pause that
grows with each death in a row, until `Limits.max_failures`. If the pool has killed it because of one job, that job
alone fails, and the others are done again, once. A worker ends when its socket is closed, so it ends with its parent
in any case.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, assert_never

from fl_edge.data import fresh
from fl_edge.session.privacy import Charge
from fl_edge.workers.deadlines import Deadlines
from fl_edge.workers.failures import log_trace
from fl_edge.workers.jobs import (
    EvaluateJob,
    FailureKind,
    FailureOutcome,
    JobResult,
    LoadJob,
    Masking,
    PredictJob,
    TrainJob,
    Vectors,
)
from fl_edge.workers.limits import DEFAULT_LIMITS, Limits
from fl_edge.workers.process import WORKER, WorkerProcess
from fl_edge.workers.protocol import (
    CacheModel,
    CancelJob,
    FromWorker,
    JobFinished,
    Ready,
    RunJob,
    WorkerUnavailable,
)
from fl_edge.workers.slot import PendingJob, Slot
from fl_shared.protocol.messages import Correction, Partition, Split, TrainingRequest
from fl_shared.system.backoff import backoff
from fl_shared.system.flood_control import TurnQueue
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Manifest

MAX_RESTART_DELAY: Final = 30.0
"""Seconds."""
MAX_PREDICTIONS_PER_WORKER: Final = 4
"""The most prediction jobs that one worker has at a time."""


class Pool:
    """Starts ``workers`` processes at once, and gives them jobs. Its methods may be called on any thread.

    ``on_done`` is called with exactly one result for each job, on any thread; it must only enqueue. It is not
    called after ``close``. ``stderr``: the file for the workers' stderr (default: ours). ``warm``: workers import
    torch at once, which takes seconds, and not with the first job; ``light``: never. ``program``: see
    `process.WORKER`. Raises ``ValueError`` if ``workers`` is below 1.
    """

    def __init__(
        self,
        workers: int,
        data_dir: Path | None,
        device: str,
        on_done: Callable[[JobResult], None],
        *,
        stderr: IO[bytes] | int | None = None,
        warm: bool = True,
        light: bool = False,
        limits: Limits = DEFAULT_LIMITS,
        program: Sequence[str] = WORKER,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers: {workers}, expected at least 1")
        self._data_dir, self._device, self._stderr, self._warm = data_dir, device, stderr, warm
        self._light, self._program = light, program
        self._limits = limits
        self._on_done = on_done
        self._watch = fresh.Watch(data_dir)
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._job_ids = itertools.count(1)
        self._pending: dict[int, PendingJob] = {}
        self._queue: deque[int] = deque()
        self._prediction_queue: TurnQueue[str | None, int] = TurnQueue()
        self._slots = [Slot(number) for number in range(workers)]
        self._deadlines = Deadlines(self._kill_late)
        self._supervisors = [
            threading.Thread(target=self._supervise, args=(slot,), name=f"worker-{slot.number}", daemon=True)
            for slot in self._slots
        ]
        for supervisor in self._supervisors:
            supervisor.start()

    # --- jobs that can be submitted; each method returns the job's id

    def load(
        self,
        client: str,
        task: str,
        partition: Partition | None,
        run_weights: Manifest | None = None,
        *,
        test: bool = False,
    ) -> int:
        """Submits a job that summarizes a partition: the result is a `LoadOutcome`. See `LoadJob`.

        If the data have changed since the last one, all jobs from now on read them anew.
        """
        self._watch.look()
        return self._submit(PendingJob(LoadJob(client, task, partition, run_weights, test)))

    def train(
        self,
        client: str,
        task: str,
        partition: Partition,
        base: CacheModel | None,
        settings: TrainingRequest,
        round: int,  # noqa: A002  it is what the wire calls it
        encoding: str = FLOAT32.name,
        correction: Correction | None = None,
        companions: Mapping[str, CacheModel] | None = None,
        own: Vectors | None = None,
        *,
        personal: bool = False,
        masking: Masking | None = None,
        spent: tuple[Charge, ...] = (),
    ) -> int:
        """Submits a training job from ``base``; None in round 0. The result is a `TrainOutcome` in ``encoding``.

        For the vectors of a ``correction``, ``personal``, ``masking`` and ``spent``, see `TrainJob`.
        """
        digest, vectors = None if base is None else base.digest, companions or {}
        digests = {name: vector.digest for name, vector in vectors.items()}
        job = TrainJob(
            client,
            task,
            partition,
            digest,
            settings,
            round,
            encoding,
            correction,
            digests,
            own,
            personal,
            masking,
            spent,
        )
        return self._submit(PendingJob(job, (*([] if base is None else [base]), *vectors.values())))

    def evaluate(
        self, client: str, task: str, split: Split, partition: Partition | None, model: CacheModel,
        local: CacheModel | None = None,
    ) -> int:  # fmt: skip
        """Submits an evaluation of ``model`` on a split: the result is an `EvaluateOutcome`. ``local``: see there."""
        needed, digest = _with_local(model, local)
        return self._submit(
            PendingJob(EvaluateJob(client, task, split, partition, model.digest, digest), needed)
        )

    def predict(
        self, task: str, model: CacheModel, payload: bytes, asker: str | None = None,
        client: str = "", partition: Partition | None = None, local: CacheModel | None = None,
    ) -> int:  # fmt: skip
        """Submits a request of ``asker``, which ``client`` answers with ``model``: the result is a `PredictOutcome`."""
        needed, digest = _with_local(model, local)
        return self._submit(
            PendingJob(PredictJob(task, model.digest, payload, client, partition, digest), needed, asker)
        )

    def cancel(self, job_id: int) -> None:
        """Cancels a job: its result is ``cancelled``, unless it has already finished. Predictions are not cancelled."""
        with self._lock:
            pending = self._pending.get(job_id)
            if pending is None or pending.cancelled or isinstance(pending.job, PredictJob):
                return
            pending.cancelled = True
            if pending.slot is not None:
                pending.slot.send(CancelJob(job_id))
                self._deadlines.set(job_id, self._limits.cancel_grace)
                return
            self._queue.remove(job_id)
            del self._pending[job_id]
        self._deliver(
            [JobResult(job_id, pending.job, FailureOutcome("cancelled", "cancelled while waiting"), 0.0)]
        )

    def close(self) -> None:
        """Ends all workers at once; waits at most twice ``close_grace``. Unfinished jobs get no result."""
        self._closing.set()
        self._deadlines.close()
        with self._lock:
            processes = [slot.process for slot in self._slots if slot.process is not None]
            for process in processes:
                process.close_input()
        deadline = time.monotonic() + self._limits.close_grace
        for process in processes:
            if not process.wait(deadline - time.monotonic()):
                process.kill()
        for supervisor in self._supervisors:
            if supervisor is not threading.current_thread():
                supervisor.join(self._limits.close_grace)

    # --- the queue of jobs

    def _submit(self, pending: PendingJob) -> int:
        with self._lock:
            job_id = next(self._job_ids)
            refusal = self._fatal_error()
            kind: FailureKind = "failed" if refusal is None else "no-worker"
            most = self._limits.predictions_waiting
            if isinstance(pending.job, PredictJob) and len(self._prediction_queue) >= most:
                refusal = f"{most} predictions are already waiting"
            if refusal is None:
                self._pending[job_id] = pending
                if isinstance(pending.job, PredictJob):
                    self._prediction_queue.append(pending.asker, job_id)
                else:
                    self._queue.append(job_id)
                self._dispatch()
                return job_id
        self._deliver([JobResult(job_id, pending.job, FailureOutcome(kind, refusal), 0.0)])
        return job_id

    def _dispatch(self) -> None:
        """Gives waiting jobs to free workers. The caller holds the lock."""
        for slot in self._slots:
            if slot.ready and slot.job is None and self._queue:
                slot.job = self._queue.popleft()
                self._assign(slot, slot.job)
        while self._prediction_queue:
            available = [
                s for s in self._slots if s.ready and len(s.predictions) < MAX_PREDICTIONS_PER_WORKER
            ]
            if not available:
                return
            slot = min(available, key=lambda s: (s.job is not None, len(s.predictions)))
            job_id = self._prediction_queue.popleft()
            slot.predictions.append(job_id)
            self._assign(slot, job_id)

    def _assign(self, slot: Slot, job_id: int) -> None:
        pending = self._pending[job_id]
        pending.slot = slot
        slot.ensure_cached(pending.models, self._limits.bytes_kept)
        slot.send(RunJob(job_id, pending.job, self._watch.changes))
        if job_id in [slot.job, *slot.predictions[:1]]:
            self._begin(job_id)

    def _begin(self, job_id: int) -> None:
        """Starts the time of a job that its worker does now. The caller holds the lock."""
        pending = self._pending[job_id]
        pending.begun = time.monotonic()
        self._deadlines.set(job_id, self._limits.seconds_for(pending.job))

    def _deliver(self, results: list[JobResult]) -> None:
        for result in results:
            if not self._closing.is_set():
                self._on_done(result)

    def _fatal_error(self) -> str | None:
        """Returns why no worker will ever run again, or None. The caller holds the lock."""
        fatal_errors = [slot.fatal_error for slot in self._slots]
        return fatal_errors[0] if all(fatal_error is not None for fatal_error in fatal_errors) else None

    # --- workers; each slot has a thread that starts its worker, receives from it and replaces it

    def _supervise(self, slot: Slot) -> None:
        while not self._closing.is_set():
            detail = self._run_worker(slot)
            with self._lock:
                if slot.kill_reason is None:
                    # A job that is late says nothing about the worker, and whoever sends such jobs must not end it.
                    slot.failures += 1
                if slot.fatal_error is None and slot.failures >= self._limits.max_failures:
                    slot.fatal_error = f"{detail}; {slot.failures} times in a row"
                results = self._end_lost_jobs(slot, detail)
                self._dispatch()
                delay = backoff(max(slot.failures - 1, 0), self._limits.first_pause, MAX_RESTART_DELAY)
            self._deliver(results)
            if slot.fatal_error is not None or self._closing.wait(delay):
                return

    def _run_worker(self, slot: Slot) -> str:
        """Runs one worker process until it ends. Returns how it ended, for people."""
        try:
            process = WorkerProcess(
                self._data_dir,
                self._device,
                self._stderr,
                warm=self._warm,
                light=self._light,
                program=self._program,
            )
        except OSError as error:
            return f"cannot start a worker process: {error}"
        with self._lock:
            slot.process = process
            if self._closing.is_set():
                process.close_input()
        for frame in process.receive():
            self._on_frame(slot, frame)
            del frame  # it may hold a large vector
        return slot.kill_reason or process.exit_reason()

    def _on_frame(self, slot: Slot, frame: FromWorker) -> None:
        results: list[JobResult] = []
        with self._lock:
            match frame:
                case Ready():
                    slot.ready = True
                case WorkerUnavailable(detail=detail):
                    slot.fatal_error = detail
                case JobFinished(id=job_id, outcome=outcome, seconds=seconds):
                    slot.failures = 0
                    if slot.job == job_id:
                        slot.job = None
                    else:
                        slot.predictions.remove(job_id)
                        for following in slot.predictions[:1]:
                            self._begin(following)
                    pending = self._take(job_id)
                    if isinstance(outcome, FailureOutcome) and outcome.trace:
                        log_trace(outcome.trace)
                    results.append(JobResult(job_id, pending.job, outcome, seconds))
                case _:
                    assert_never(frame)
            self._dispatch()
        self._deliver(results)

    def _end_lost_jobs(self, slot: Slot, detail: str) -> list[JobResult]:
        """Returns failures for the jobs of a dead worker; for all jobs if it was the last. The caller holds the lock.

        If it was killed because of one of its jobs, the others wait again instead, once.
        """
        late_job = slot.late_job
        slot.process, slot.ready, slot.kill_reason, slot.late_job = None, False, None, None
        lost_jobs = [*slot.predictions, *([] if slot.job is None else [slot.job])]
        slot.job, slot.predictions = None, []
        slot.models.clear()
        fatal_error = self._fatal_error()
        if fatal_error is not None:
            detail = fatal_error
            for queue in (self._queue, self._prediction_queue):
                lost_jobs += [queue.popleft() for _ in range(len(queue))]
        elif late_job is not None:
            lost_jobs = [job_id for job_id in lost_jobs if job_id == late_job or not self._put_back(job_id)]
        results = []
        for job_id in lost_jobs:
            pending = self._take(job_id)
            failed = (
                FailureOutcome("cancelled", "cancelled")
                if pending.cancelled
                else FailureOutcome("failed" if fatal_error is None else "no-worker", detail)
            )
            seconds = 0.0 if pending.begun is None else time.monotonic() - pending.begun
            results.append(JobResult(job_id, pending.job, failed, seconds))
        return results

    def _put_back(self, job_id: int) -> bool:
        """Lets a lost job wait again, if it has not been lost before and is wanted. The caller holds the lock."""
        pending = self._pending[job_id]
        if pending.lost or pending.cancelled:
            return False
        self._deadlines.discard(job_id)
        pending.slot, pending.begun, pending.lost = None, None, True
        if isinstance(pending.job, PredictJob):
            self._prediction_queue.append(pending.asker, job_id)
        else:
            self._queue.appendleft(job_id)
        return True

    def _take(self, job_id: int) -> PendingJob:
        """Removes a job that has ended. The caller holds the lock."""
        self._deadlines.discard(job_id)
        return self._pending.pop(job_id)

    def _kill_late(self, job_id: int) -> None:
        """Kills the worker of a job that has taken too long."""
        with self._lock:
            pending = self._pending.get(job_id)
            if pending is None or pending.slot is None or pending.slot.process is None:
                return  # it has just ended
            if pending.slot.late_job is not None:
                return  # it has just been killed
            late = f"the task did not end within {self._limits.seconds_for(pending.job):g} s"
            reason = "a cancelled job did not end" if pending.cancelled else late
            pending.slot.kill_reason = f"{reason}: its worker process was killed"
            pending.slot.late_job = job_id
            pending.slot.process.kill()


def _with_local(model: CacheModel, local: CacheModel | None) -> tuple[tuple[CacheModel, ...], str | None]:
    """Returns what a job needs, and the digest of the local part."""
    return ((model,), None) if local is None else ((model, local), local.digest)
