"""A model: its announcement, its manifest and its chunks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fl_shared.protocol.kinds.base import MAX_CHUNK, Count, Digest, Fragment, Scoped, Split, TaskSpec
from fl_shared.protocol.kinds.round import ModelReference, TrainingRequest
from fl_shared.tensors.encodings.registry import ModelEncoding
from fl_shared.tensors.manifest import MAX_ARRAYS, ArraySpec


class ModelAnnouncement(Scoped):
    """The newest version, retained on ``fl/model``. ``evaluate``: the split on which edges should evaluate it.

    ``training``: with ``evaluate`` personal, how edges train models of their own.

    ``first_version``: the model is the mean of the versions from this one to ``version``; null: it is ``version``.
    ``candidate``: a later version that edges should evaluate in place of this one, with which they go on predicting.
    """

    kind: Literal["model"] = "model"
    task: TaskSpec
    round: Count
    version: Count
    digest: Digest
    chunks: Annotated[int, Field(ge=1, le=1_000_000)]
    size: Count
    evaluate: Split | None = None
    first_version: Count | None = None
    training: TrainingRequest | None = None
    candidate: ModelReference | None = None

    @property
    def measured(self) -> ModelAnnouncement:
        """The model that is to be evaluated, as if it had been announced itself."""
        if self.candidate is None:
            return self
        named = {"version": self.candidate.version, "digest": self.candidate.digest, "candidate": None}
        return self.model_copy(update=named)


class SectionManifest(Fragment):
    """A section of a model: its name, its encoding, its arrays in order, and its size in bytes."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    encoding: ModelEncoding
    arrays: Annotated[tuple[ArraySpec, ...], Field(min_length=1, max_length=MAX_ARRAYS, fail_fast=True)]
    size: Count


class ModelManifest(Scoped):
    """How to read the bytes of a model's chunks, retained on ``fl/model/<digest12>/manifest`` (msgpack)."""

    kind: Literal["manifest"] = "manifest"
    digest: Digest
    sections: Annotated[tuple[SectionManifest, ...], Field(min_length=1, max_length=16, fail_fast=True)]
    size: Count
    chunk_size: Annotated[int, Field(ge=1, le=MAX_CHUNK)]
    chunks: Annotated[int, Field(ge=1, le=1_000_000)]


class ModelChunk(Scoped):
    """One chunk of a model, retained on ``fl/model/<digest12>/<index>`` (msgpack)."""

    kind: Literal["model-chunk"] = "model-chunk"
    digest: Digest
    index: Count
    data: bytes
