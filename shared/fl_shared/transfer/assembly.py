"""PURE: assembles one model from chunks that arrive in any order (see `download.ModelDownload`)."""

from __future__ import annotations

from fl_shared.protocol import messages as m
from fl_shared.tensors.digest import ContentHash
from fl_shared.tensors.manifest import Manifest
from fl_shared.tensors.sections import ModelSection


class Assembly:
    """The bytes of a model that have arrived, and the hash of those up to the first missing chunk."""

    def __init__(
        self, manifest: m.ModelManifest, manifests: tuple[Manifest, ...], buffer: bytearray | memoryview
    ) -> None:
        self.manifest = manifest
        self.received = bytearray(manifest.chunks)
        self.received_count = 0
        self._manifests = manifests
        self._view = memoryview(buffer)
        self._hash = ContentHash(
            (section.name, section.encoding, arrays.digest, section.size)
            for section, arrays in zip(manifest.sections, manifests, strict=True)
        )
        self._hashed_chunks = 0
        """The number of chunks that the hash covers."""

    @property
    def is_complete(self) -> bool:
        """Whether all chunks have arrived. Their content is not checked; see `digest`."""
        return self.received_count == self.manifest.chunks

    def has(self, index: int) -> bool:
        """Whether chunk ``index`` has arrived; False for an index that the model does not have."""
        return index < self.manifest.chunks and bool(self.received[index])

    def chunk_length(self, index: int) -> int:
        """The number of bytes of chunk ``index``; the last one may be shorter than the others."""
        return min(self.manifest.chunk_size, self.manifest.size - index * self.manifest.chunk_size)

    def put(self, index: int, data: bytes) -> None:
        """Stores chunk ``index``, which must be new, and hashes all chunks before the first missing one."""
        start = index * self.manifest.chunk_size
        self._view[start : start + len(data)] = data
        self.received[index] = 1
        self.received_count += 1
        while self._hashed_chunks < self.manifest.chunks and self.received[self._hashed_chunks]:
            start = self._hashed_chunks * self.manifest.chunk_size
            self._hash.update(self._view[start : start + self.chunk_length(self._hashed_chunks)])
            self._hashed_chunks += 1

    def digest(self) -> str:
        """The digest (hex) of the assembled model, once it is complete."""
        return self._hash.hexdigest()

    def sections(self) -> tuple[ModelSection, ...]:
        """The sections of the complete model, as read-only views of the buffer."""
        view, start, sections = self._view.toreadonly(), 0, []
        for section, arrays in zip(self.manifest.sections, self._manifests, strict=True):
            data = view[start : start + section.size]
            sections.append(ModelSection(section.name, arrays, data, section.encoding))
            start += section.size
        return tuple(sections)
