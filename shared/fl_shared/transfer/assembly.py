"""PURE: the bytes of one model while its chunks come, in whatever order (see `transfer.ModelDownload`)."""

from __future__ import annotations

from fl_shared.protocol import messages as m
from fl_shared.tensors.manifest import ContentHash, Manifest
from fl_shared.tensors.sections import ModelSection


class Assembly:
    """The bytes of a model, as far as they are here, and the hash of those that have none missing before them."""

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
        """Chunks that are in the hash."""

    @property
    def is_complete(self) -> bool:
        return self.received_count == self.manifest.chunks

    def has(self, index: int) -> bool:
        return index < self.manifest.chunks and bool(self.received[index])

    def chunk_length(self, index: int) -> int:
        return min(self.manifest.chunk_size, self.manifest.size - index * self.manifest.chunk_size)

    def put(self, index: int, data: bytes) -> None:
        start = index * self.manifest.chunk_size
        self._view[start : start + len(data)] = data
        self.received[index] = 1
        self.received_count += 1
        while self._hashed_chunks < self.manifest.chunks and self.received[self._hashed_chunks]:
            start = self._hashed_chunks * self.manifest.chunk_size
            self._hash.update(self._view[start : start + self.chunk_length(self._hashed_chunks)])
            self._hashed_chunks += 1

    def digest(self) -> str:
        return self._hash.hexdigest()

    def sections(self) -> tuple[ModelSection, ...]:
        """Views that nobody writes to any more."""
        whole, start, sections = self._view.toreadonly(), 0, []
        for section, arrays in zip(self.manifest.sections, self._manifests, strict=True):
            data = whole[start : start + section.size]
            sections.append(ModelSection(section.name, arrays, data, section.encoding))
            start += section.size
        return tuple(sections)
