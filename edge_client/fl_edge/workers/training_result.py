"""Writes the result of a training into memory that the worker shares with the edge."""

from __future__ import annotations

import numpy as np

from fl_edge.training.executor import TrainedUpdate, encoding_seed
from fl_edge.workers.jobs import TrainJob, TrainOutcome, Vectors, sections_of
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.encodings import registry
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Manifest, Vector
from fl_shared.tensors.sections import model_digest


class ResultBuffer:
    """The shared memory that a training job writes its vector into."""

    def __init__(self) -> None:
        self.memory = SharedBytes.new(0)
        self.vector: Vector = np.empty(0, np.float32)

    def allocate(self, values: int) -> Vector:
        """See `executor.VectorAllocator`."""
        self.memory = SharedBytes.new(FLOAT32.size(values))
        self.vector = FLOAT32.decode(self.memory.view)
        return self.vector

    def encoded(self, encoding: str, seed: int) -> SharedBytes:
        """Returns the encoded vector; the same memory if the encoding does not change the bytes."""
        data = registry.get(encoding).encode(self.vector, seed)
        same = np.shares_memory(np.frombuffer(data, np.uint8), self.vector)
        return self.memory if same else SharedBytes.copy_of(data)


def train_outcome(
    job: TrainJob, manifest: Manifest, result: ResultBuffer, update: TrainedUpdate
) -> TrainOutcome:
    """Returns the outcome of a job. It is encoded and hashed in this process, which has a core of its own."""
    encoding, seed = (
        registry.get(job.encoding),
        encoding_seed(job.settings.seed, job.round, job.client),
    )
    delta = result.encoded(job.encoding, seed)
    sections = own = None
    if update.sections:
        sections = Vectors.of({name: encoding.encode(one, seed) for name, one in update.sections.items()})
    if update.own:
        own = Vectors.of({name: FLOAT32.encode(one, seed) for name, one in update.own.items()})
    digest = model_digest(sections_of(manifest, job.encoding, delta, sections))
    return TrainOutcome(
        manifest,
        delta,
        digest,
        update.examples,
        update.steps,
        update.seconds,
        update.metrics,
        job.encoding,
        sections,
        own,
    )
