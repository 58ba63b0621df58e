"""PURE: turns a model into the retained messages that the broker keeps (`model_publication`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.registry import ModelEncoding
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.manifest import Manifest
from fl_shared.tensors.sections import WEIGHTS, ModelSection, model_digest

MAX_MODEL_BYTES: Final = 2**31
"""Bytes of the largest model that a receiver accepts by default: it must not trust a manifest for that."""
MAX_CHUNKS: Final = 1_000_000

ModelDataTopic = t.ManifestTopic | t.ChunkTopic
"""The topic of one message of a model."""


class TransferError(ValueError):
    """A model that is to be published, or a received manifest, is not valid; the text names the field."""


@dataclass(frozen=True, slots=True)
class ModelPublication:
    """The content of a model's retained messages; the publisher adds the envelope."""

    digest: str
    sections: tuple[ModelSection, ...]
    chunk_size: int
    size: int
    """Bytes of all sections together."""

    @property
    def chunks(self) -> int:
        """The number of chunks, at least 1."""
        return chunk_count(self.size, self.chunk_size)

    def manifest(self, *, run: str, incarnation: int, seq: int) -> m.ModelManifest:
        """The message that describes the model: its sections, and how they are cut into chunks."""
        return m.ModelManifest(
            run=run,
            incarnation=incarnation,
            seq=seq,
            digest=self.digest,
            sections=tuple(
                m.SectionManifest(
                    name=s.name,
                    encoding=cast(ModelEncoding, s.encoding),
                    arrays=s.manifest.arrays,
                    size=len(s.data),
                )
                for s in self.sections
            ),
            size=self.size,
            chunk_size=self.chunk_size,
            chunks=self.chunks,
        )

    def chunk(self, index: int, *, run: str, incarnation: int, seq: int) -> m.ModelChunk:
        """The message of chunk ``index``. Raises ``IndexError`` if there is no such chunk."""
        if not 0 <= index < self.chunks:
            raise IndexError(f"chunk {index} of {self.chunks}")
        data = slice_sections(self.sections, index * self.chunk_size, (index + 1) * self.chunk_size)
        # Not validated: a view would not pass as bytes, and the manifest has validated the rest.
        return m.ModelChunk.model_construct(
            run=run,
            incarnation=incarnation,
            seq=seq,
            digest=self.digest,
            index=index,
            data=cast(bytes, data),
        )

    def topics(self) -> tuple[ModelDataTopic, ...]:
        """The topics to publish on, in order: the manifest is last, so that who sees it finds all chunks."""
        digest12 = self.digest[:12]
        return (*(t.ChunkTopic(digest12, i) for i in range(self.chunks)), t.ManifestTopic(digest12))


def model_publication(
    sections: Sequence[ModelSection], chunk_size: int, digest: str | None = None, needed: str = WEIGHTS
) -> ModelPublication:
    """Prepares a model for publication in chunks of ``chunk_size`` bytes (the last may be shorter).

    ``digest``: the model's digest, if it is known; otherwise it is computed. ``needed``: the name of a section that
    there must be. Raises ``TransferError`` for
    sections that are not valid, and for more than `MAX_CHUNKS` chunks.
    """
    if chunk_size < 1:
        raise TransferError(f"chunk_size: {chunk_size}, expected at least 1")
    _check_names([section.name for section in sections], needed)
    for section in sections:
        form = SectionFormat.of(section.encoding, section.manifest)
        if problem := form.size_problem(len(section.data)):
            raise TransferError(f"section {section.name!r}: {problem}")
    size = sum(len(section.data) for section in sections)
    if chunk_count(size, chunk_size) > MAX_CHUNKS:
        raise TransferError(f"chunk_size: {chunk_size} cuts {size} bytes into more than {MAX_CHUNKS} chunks")
    return ModelPublication(digest or model_digest(sections), tuple(sections), chunk_size, size)


def chunk_count(size: int, chunk_size: int) -> int:
    """The number of chunks of ``size`` bytes: at least one, so that even an empty model has a chunk 0."""
    return max(1, -(-size // chunk_size))


def check_manifest(
    message: m.ModelManifest, max_bytes: int = MAX_MODEL_BYTES, needed: str = WEIGHTS
) -> tuple[Manifest, ...]:
    """The manifests of a received model's sections, if its numbers agree. Raises ``TransferError``."""
    if message.size > max_bytes:
        raise TransferError(f"size: {message.size} bytes, expected at most {max_bytes}")
    if message.chunks != chunk_count(message.size, message.chunk_size):
        given = chunk_count(message.size, message.chunk_size)
        raise TransferError(f"chunks: {message.chunks}, but size and chunk_size give {given}")
    _check_names([section.name for section in message.sections], needed)
    manifests = []
    for section in message.sections:
        try:
            manifest = Manifest(arrays=section.arrays)
        except ValueError as error:
            raise TransferError(f"section {section.name!r}: {error}") from None
        if FLOAT32.size(manifest.values) > max_bytes:  # what it is decoded to, however few bytes it has now
            raise TransferError(
                f"section {section.name!r}: {FLOAT32.size(manifest.values)} bytes as float32, "
                f"expected at most {max_bytes}"
            )
        if problem := SectionFormat.of(section.encoding, manifest).size_problem(section.size):
            raise TransferError(f"section {section.name!r}: size: {problem}")
        manifests.append(manifest)
    if sum(section.size for section in message.sections) != message.size:
        raise TransferError(f"size: {message.size}, but the sizes of the sections have another sum")
    return tuple(manifests)


def _check_names(names: list[str], needed: str) -> None:
    if names != sorted(set(names)) or needed not in names:
        raise TransferError(f"sections: {names}, expected unique ascending names with {needed!r} among them")


def slice_sections(sections: Sequence[ModelSection], start: int, end: int) -> bytes | memoryview:
    """Bytes ``start`` to ``end`` of the concatenated sections; a view if they are all in one section."""
    pieces: list[memoryview] = []
    for section in sections:
        length = len(section.data)
        if start < length and end > 0:
            pieces.append(memoryview(section.data)[max(0, start) : end])
        start, end = start - length, end - length
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
