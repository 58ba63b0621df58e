"""PURE: a model as sections, and as the retained messages that lie at the broker (`model_publication`)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.encodings import registry
from fl_shared.tensors.manifest import Manifest
from fl_shared.tensors.sections import WEIGHTS, ModelSection, model_digest

MAX_MODEL_BYTES: Final = 2**31
"""What a receiver takes at most, unless told otherwise; its memory is not for a manifest to decide about."""
MAX_CHUNKS: Final = 1_000_000

ModelDataTopic = t.ManifestTopic | t.ChunkTopic
"""Where the messages of one model lie."""


class TransferError(ValueError):
    """What is to be published, or has come, is no model; the text names the field."""


@dataclass(frozen=True, slots=True)
class ModelPublication:
    """One model as the content of its retained messages; who publishes them adds the envelope."""

    digest: str
    sections: tuple[ModelSection, ...]
    chunk_size: int
    size: int
    """Bytes of all sections together."""

    @property
    def chunks(self) -> int:
        return chunk_count(self.size, self.chunk_size)

    def manifest(self, *, run: str, incarnation: int, seq: int) -> m.ModelManifest:
        return m.ModelManifest(
            run=run,
            incarnation=incarnation,
            seq=seq,
            digest=self.digest,
            sections=tuple(
                m.SectionManifest(
                    name=s.name, encoding=s.encoding, arrays=s.manifest.arrays, size=len(s.data)
                )
                for s in self.sections
            ),
            size=self.size,
            chunk_size=self.chunk_size,
            chunks=self.chunks,
        )

    def chunk(self, index: int, *, run: str, incarnation: int, seq: int) -> m.ModelChunk:
        """Chunk ``index`` of ``chunks``. Raises ``IndexError`` for another one."""
        if not 0 <= index < self.chunks:
            raise IndexError(f"chunk {index} of {self.chunks}")
        data = self._chunk_data(index * self.chunk_size)
        return m.ModelChunk(
            run=run,
            incarnation=incarnation,
            seq=seq,
            digest=self.digest,
            index=index,
            crc32=zlib.crc32(data),
            data=data,
        )

    def topics(self) -> tuple[ModelDataTopic, ...]:
        """Where they lie: chunks first, so that who sees the manifest finds the rest."""
        short = self.digest[:12]
        return (*(t.ChunkTopic(short, i) for i in range(self.chunks)), t.ManifestTopic(short))

    def _chunk_data(self, start: int) -> bytes:
        pieces, end = [], start + self.chunk_size
        for section in self.sections:
            length = len(section.data)
            if start < length and end > 0:
                pieces.append(bytes(section.data[max(0, start) : end]))
            start, end = start - length, end - length
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def model_publication(
    sections: Sequence[ModelSection], chunk_size: int, digest: str | None = None
) -> ModelPublication:
    """A model, ready to be cut into chunks of ``chunk_size`` bytes (the last one is shorter).

    ``digest`` spares computing it where it is known. Raises ``TransferError`` for sections that are none.
    """
    if chunk_size < 1:
        raise TransferError(f"chunk_size: {chunk_size}, expected at least 1")
    _check_names([section.name for section in sections])
    for section in sections:
        expected = registry.get(section.encoding).size(section.manifest.values)
        if len(section.data) != expected:
            raise TransferError(f"section {section.name!r}: {len(section.data)} bytes, expected {expected}")
    size = sum(len(section.data) for section in sections)
    if chunk_count(size, chunk_size) > MAX_CHUNKS:
        raise TransferError(f"chunk_size: {chunk_size} cuts {size} bytes into more than {MAX_CHUNKS} chunks")
    return ModelPublication(digest or model_digest(sections), tuple(sections), chunk_size, size)


def chunk_count(size: int, chunk_size: int) -> int:
    """A model without a byte has one (empty) chunk: there is no chunk 0 otherwise to be superseded."""
    return max(1, -(-size // chunk_size))


def check_manifest(message: m.ModelManifest, max_bytes: int = MAX_MODEL_BYTES) -> tuple[Manifest, ...]:
    """The manifests of its sections, if all its numbers agree. Raises ``TransferError``."""
    if message.size > max_bytes:
        raise TransferError(f"size: {message.size} bytes, expected at most {max_bytes}")
    if message.chunks != chunk_count(message.size, message.chunk_size):
        given = chunk_count(message.size, message.chunk_size)
        raise TransferError(f"chunks: {message.chunks}, but size and chunk_size give {given}")
    _check_names([section.name for section in message.sections])
    manifests = []
    for section in message.sections:
        try:
            manifest = Manifest(arrays=section.arrays)
        except ValueError as error:
            raise TransferError(f"section {section.name!r}: {error}") from None
        expected = registry.get(section.encoding).size(manifest.values)
        if section.size != expected:
            raise TransferError(f"section {section.name!r}: size: {section.size}, expected {expected}")
        manifests.append(manifest)
    if sum(section.size for section in message.sections) != message.size:
        raise TransferError(f"size: {message.size}, but the sizes of the sections have another sum")
    return tuple(manifests)


def _check_names(names: list[str]) -> None:
    if names != sorted(set(names)) or WEIGHTS not in names:
        raise TransferError(f"sections: {names}, expected unique ascending names with {WEIGHTS!r} among them")
