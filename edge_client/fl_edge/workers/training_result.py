"""Writes the result of a training into memory that the worker shares with the edge."""

from __future__ import annotations

from typing import Final

import numpy as np

from fl_edge.training.executor import TrainedUpdate, encoding_seed
from fl_edge.workers.jobs import TrainJob, TrainOutcome, Vectors, sections_of
from fl_shared.system.shared_memory import MemoryPool, SharedBytes
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.section import SectionFormat, decoded
from fl_shared.tensors.manifest import Manifest, Vector
from fl_shared.tensors.sections import model_digest

ERROR: Final = "@error"
"""The vector of what the encoding has lost, among those that an edge keeps. Nothing else has this name."""


class ResultBuffer:
    """The shared memory of ``pool`` that a training job writes its vector into."""

    def __init__(self, pool: MemoryPool) -> None:
        self._pool = pool
        self.memory = SharedBytes.new(0)
        self.vector: Vector = np.empty(0, np.float32)

    def allocate(self, values: int) -> Vector:
        """See `executor.VectorAllocator`."""
        self.memory = self._pool.lend(FLOAT32.size(values))
        self.vector = FLOAT32.decode(self.memory.view)
        return self.vector

    def encoded(self, form: SectionFormat, seed: int) -> SharedBytes:
        """Returns the encoded vector; the same memory if the encoding does not change the bytes."""
        data = form.encode(self.vector, seed)
        same = np.shares_memory(np.frombuffer(data, np.uint8), self.vector)
        return self.memory if same else SharedBytes.copy_of(data)


def train_outcome(
    job: TrainJob,
    manifest: Manifest,
    result: ResultBuffer,
    update: TrainedUpdate,
    error: Vector | None = None,
) -> TrainOutcome:
    """Returns the outcome of a job. It is encoded and hashed in this process, which has a core of its own.

    ``error``: what encodings have lost of the edge's earlier updates and not made good yet, shape (manifest.values,);
    null if nothing. An encoding with feedback adds it, and what it loses now becomes a part of what the edge keeps.
    """
    form = SectionFormat.of(job.encoding, manifest)
    seed = encoding_seed(job.settings.seed, job.round, job.client)
    kept = dict(update.own)
    if form.encoding.feedback and error is not None:
        result.vector += error
    delta = result.encoded(form, seed)
    if form.encoding.feedback:
        kept[ERROR] = result.vector - decoded(form.values_in(delta.view))
    sections = own = None
    if update.sections:
        sections = Vectors.of({name: FLOAT32.encode(one, seed) for name, one in update.sections.items()})
    if kept:
        own = Vectors.of({name: FLOAT32.encode(one, seed) for name, one in kept.items()})
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
