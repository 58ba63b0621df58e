"""The place of a worker in its pool: the process that has it now, its jobs, and the models that it keeps."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from fl_edge.workers.jobs import Job
from fl_edge.workers.process import WorkerProcess
from fl_edge.workers.protocol import CacheModel, EvictModel, ToWorker

MAX_CACHED_MODELS: Final = 4
"""The most models that one worker keeps, if they have at most `Limits.bytes_kept` bytes in all."""


@dataclass(slots=True, eq=False)
class Slot:
    """One worker and its replacements. Guarded by the pool's lock."""

    number: int
    process: WorkerProcess | None = None
    ready: bool = False
    job: int | None = None
    predictions: list[int] = field(default_factory=list)
    """In the order in which the worker answers them: only the first has begun."""
    models: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """The bytes of each model that the worker keeps, by digest; the most recently used is last."""
    failures: int = 0
    fatal_error: str | None = None
    """Why the worker is not started again; None if it is."""
    kill_reason: str | None = None
    """Why the pool has killed the worker; None if it has not."""
    late_job: int | None = None
    """The job for which it has."""

    def send(self, frame: ToWorker) -> None:
        """Queues a frame for the worker, which must run."""
        assert self.process is not None
        self.process.send(frame)

    def ensure_cached(self, models: tuple[CacheModel, ...], bytes_kept: int) -> None:
        """Sends the models of a job that the worker does not have, and evicts the least recently used others.

        ``bytes_kept``: of the models that it keeps, at most. It handles models and jobs in the order sent, so a job
        that it has does not lose its models.
        """
        for model in models:
            if model.digest not in self.models:
                self.send(model)
                self.models[model.digest] = model.weights.size
            self.models.move_to_end(model.digest)
        while len(self.models) > max(1, len(models)) and (
            len(self.models) > MAX_CACHED_MODELS or sum(self.models.values()) > bytes_kept
        ):
            digest, _ = self.models.popitem(last=False)
            self.send(EvictModel(digest))


@dataclass(slots=True, eq=False)
class PendingJob:
    """A job that has not ended. ``models``: what it needs; ``slot``: of its worker.

    ``begun``: when the worker began with it, on the monotonic clock, None if it has not; ``lost``: a worker that had it
    was killed because of another job.
    """

    job: Job
    models: tuple[CacheModel, ...] = ()
    asker: str | None = None
    slot: Slot | None = None
    cancelled: bool = False
    begun: float | None = None
    lost: bool = False
