"""A pool that does an edge's jobs without processes, and requests for predictions."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from fl_edge.errors import EdgeError
from fl_edge.session.privacy import Charge
from fl_edge.tasks import pictures
from fl_edge.workers import jobs, protocol
from fl_edge.workers.cached_model import CachedModel
from fl_edge.workers.failures import failure_of
from fl_edge.workers.worker import Worker
from fl_shared.protocol import messages as m
from fl_shared.tensors.manifest import Manifest


class InlinePool:
    """Stands in for ``pool.Pool``: the worker's own code does each job at once."""

    def __init__(self, done: Callable[[jobs.JobResult], None]) -> None:
        self._ends = socket.socketpair()
        self._worker = Worker(self._ends[0], None, "cpu", light=False, cold=True)
        self._done = done
        self._jobs = 0

    def load(
        self, client: str, task: str, partition: m.Partition | None, run_weights: Manifest | None = None
    ) -> int:
        return self._do(jobs.LoadJob(client, task, partition, run_weights), None)

    def train(
        self, client: str, task: str, partition: m.Partition, base: protocol.CacheModel | None,
        settings: m.TrainingRequest, round: int, encoding: str, *_: object,  # noqa: A002
        masking: jobs.Masking | None = None, spent: tuple[Charge, ...] = (),
    ) -> int:  # fmt: skip
        digest = None if base is None else base.digest
        job = jobs.TrainJob(
            client, task, partition, digest, settings, round, encoding, masking=masking, spent=spent
        )
        return self._do(job, base)

    def evaluate(
        self,
        client: str,
        task: str,
        split: m.Split,
        partition: m.Partition | None,
        model: protocol.CacheModel,
        *_: object,
    ) -> int:
        return self._do(jobs.EvaluateJob(client, task, split, partition, model.digest), model)

    def predict(
        self, task: str, model: protocol.CacheModel, payload: bytes, _asker: str | None = None, *_: object
    ) -> int:
        return self._do(jobs.PredictJob(task, model.digest, payload), model)

    def cancel(self, job_id: int) -> None:
        pass

    def close(self) -> None:
        for end in self._ends:
            end.close()

    def _do(self, job: jobs.Job, model: protocol.CacheModel | None) -> int:
        self._jobs += 1
        given = {} if model is None else {model.digest: CachedModel(model)}
        outcome: jobs.JobOutcome
        try:
            if isinstance(job, jobs.PredictJob):
                outcome = _look_at(job.payload)
            else:
                outcome = self._worker._perform(job, given, lambda: False)
        except (EdgeError, ValueError) as error:  # others are ours
            outcome = failure_of(error)
        self._done(jobs.JobResult(self._jobs, job, outcome, 0.0))
        return self._jobs


def _look_at(payload: bytes) -> jobs.PredictOutcome:
    """Does what every task does with a request before the model: reads the picture and scales it."""
    picture = pictures.decode_picture(payload)
    fitted = [
        pictures.preprocess_digit(picture),
        pictures.preprocess_coarse_digit(picture),
        pictures.preprocess_garment(picture),
    ]
    assert [grey.shape for grey in fitted] == [(28, 28), (8, 8), (28, 28)]
    assert pictures.preprocess_colour(picture, 32).shape == (32, 32, 3)
    return jobs.PredictOutcome({"label": "0", "probabilities": {"0": 1.0}})


def requests() -> tuple[bytes, ...]:
    """Valid requests: a PNG, a JPEG, and three forms of JSON."""
    seven = (Path(__file__).parents[3] / "examples" / "seven.png").read_bytes()
    jpeg = io.BytesIO()
    Image.open(io.BytesIO(seven)).convert("RGB").resize((40, 30)).save(jpeg, "JPEG")
    small = io.BytesIO()
    Image.open(io.BytesIO(seven)).convert("P").resize((20, 20)).save(small, "PNG")
    return (
        b'{"pixels": [[0, 255, 0], [0, 128.5, 0]]}', small.getvalue(), jpeg.getvalue(),
        b'{"pixels": [[[1, 2, 3], [4, 5, 6]]]}', b'{"pixels": [0, 0.25, 0.5, 1]}',
    )  # fmt: skip
