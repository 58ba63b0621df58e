"""The limits of a worker pool: times, failures, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, assert_never

from fl_edge.workers.jobs import EvaluateJob, Job, LoadJob, PredictJob, TrainJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a pool waits for its workers, and how much they keep.

    ``cancel_grace``: seconds after a cancel until a worker that still does the job is killed. ``job_timeout``,
    ``prediction_timeout``: the same for a job that is not cancelled, and for a prediction, from when the worker begins
    with it; training is cancelled at the round's deadline. ``close_grace``: seconds for the workers to end when the
    pool is closed. ``max_failures``: deaths in a row, without a finished job in between, after which a worker is not
    replaced; those of which a late job is the reason do not count. ``first_pause``: seconds before a dead worker is
    replaced for the first time. ``bytes_kept``: bytes of the models that a worker keeps; a model is in memory once for
    all workers, and is freed when none keeps it. ``predictions_waiting``: the most predictions that may wait.
    """

    cancel_grace: float = 30.0
    job_timeout: float = 3600.0
    prediction_timeout: float = 60.0
    close_grace: float = 3.0
    max_failures: int = 5
    first_pause: float = 0.5
    bytes_kept: int = 256 * 2**20
    predictions_waiting: int = 1024

    def seconds_for(self, job: Job) -> float:
        """Returns the seconds that a worker may take for the job until it is killed."""
        match job:
            case TrainJob():
                return math.inf
            case PredictJob():
                return self.prediction_timeout
            case LoadJob() | EvaluateJob():
                return self.job_timeout
            case _:
                assert_never(job)


DEFAULT_LIMITS: Final = Limits()
