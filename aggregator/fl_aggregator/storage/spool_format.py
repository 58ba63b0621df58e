"""The layout of a file of the spool: an update's data, then its description and which chunks have arrived.

====================  ========================================================================================
bytes                 what
====================  ========================================================================================
size                  the data of all sections, one after the other; first, so that it lies aligned in a map
n                     `UpdateDescription`, JSON
chunks                one byte for each chunk: 1 once it has arrived, else 0
24                    the footer: a magic, n and the number of chunks, each 8 bytes, little-endian
====================  ========================================================================================

A reader therefore needs no knowledge of the round: the first weights of a run describe themselves, and an
interrupted upload continues after a restart with the chunks that had not arrived. A chunk's byte is written after
its data. After a power failure, any of the file's pages may be missing: then the update has another digest in the
end, and all of it is asked for again.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from fl_aggregator.storage.update_content import SectionContent, UpdateContent
from fl_shared.protocol import messages as m
from fl_shared.system.files import open_regular

_MAGIC: Final = b"FLSPOOL2"
_FOOTER: Final = struct.Struct("<8sQQ")


class SpoolFileDamaged(Exception):
    """A file is not a file of the spool, or is incomplete."""


class UpdateDescription(BaseModel):
    """The digest and the sections of an update, and how it is cut into chunks of ``chunk_size`` bytes.

    ``chunks`` is 0 if the update arrived whole: such a file is complete whenever it exists.
    """

    model_config = ConfigDict(frozen=True)

    digest: m.Digest
    sections: tuple[m.OfferedSection, ...]
    chunk_size: int = 0
    chunks: int = 0

    @classmethod
    def of_offer(cls, offer: m.Offer) -> Self:
        """Describes an update that arrives in chunks."""
        return cls(
            digest=offer.digest, sections=offer.sections, chunk_size=offer.chunk_size, chunks=offer.chunks
        )

    @classmethod
    def of_content(cls, content: UpdateContent) -> Self:
        """Describes an update that arrived whole."""
        sections = tuple(
            m.OfferedSection.model_validate(
                {
                    "name": section.name,
                    "encoding": section.encoding,
                    "manifest": section.manifest,
                    "arrays": section.arrays,
                    "size": len(section.data),
                }
            )
            for section in content.sections
        )
        return cls(digest=content.digest, sections=sections)

    @property
    def size(self) -> int:
        """The length of the data of all sections, in bytes."""
        return sum(section.size for section in self.sections)

    def trailer(self) -> bytes:
        """The bytes that follow the data in a new file, of which no chunk has arrived."""
        text = self.model_dump_json(exclude_none=True).encode()
        return text + bytes(self.chunks) + _FOOTER.pack(_MAGIC, len(text), self.chunks)

    def content(self, data: memoryview) -> UpdateContent:
        """The update, whose sections are views of ``data`` (``size`` bytes)."""
        contents = []
        start = 0
        for s in self.sections:
            contents.append(
                SectionContent(s.name, s.encoding, s.manifest, s.arrays, data[start : start + s.size])
            )
            start += s.size
        return UpdateContent(self.digest, tuple(contents))


class ChunkTable:
    """The part of a mapped file that says which chunks have arrived."""

    def __init__(self, file: mmap.mmap, description: UpdateDescription) -> None:
        self._file = file
        self._start = len(file) - _FOOTER.size - description.chunks
        self._chunks = description.chunks

    def mark_received(self, index: int) -> None:
        """Records that chunk ``index`` has been written to its place in the data."""
        self._file[self._start + index] = 1

    def received_chunks(self) -> bytearray:
        """One byte for each chunk: 1 if it has arrived."""
        return bytearray(self._file[self._start : self._start + self._chunks])


def read_description(file: mmap.mmap) -> UpdateDescription:
    """The description in a mapped file of the spool. Raises ``SpoolFileDamaged``."""
    if len(file) < _FOOTER.size:
        raise SpoolFileDamaged(f"{len(file)} bytes, expected at least {_FOOTER.size}")
    magic, length, chunks = _FOOTER.unpack_from(file, len(file) - _FOOTER.size)
    if magic != _MAGIC:
        raise SpoolFileDamaged("it does not end like a spool file")
    end = len(file) - _FOOTER.size - chunks
    if end < length:
        raise SpoolFileDamaged(f"{len(file)} bytes, which is less than its footer says")
    try:
        description = UpdateDescription.model_validate_json(file[end - length : end])
    except ValidationError as error:
        raise SpoolFileDamaged(f"its description: {error.errors()[0]['msg']}") from None
    if (description.chunks, description.size) != (chunks, end - length):
        raise SpoolFileDamaged(
            f"{end - length} bytes in {chunks} chunks, expected {description.size} in {description.chunks}"
        )
    return description


def map_file(path: Path, access: int) -> mmap.mmap:
    """Maps a file of the spool.

    Raises ``OSError``, and ``SpoolFileDamaged`` if it is empty, since that cannot be mapped.
    """
    file = open_regular(path, os.O_RDONLY if access == mmap.ACCESS_READ else os.O_RDWR)
    try:
        if os.fstat(file).st_size == 0:
            raise SpoolFileDamaged("it is empty")
        return mmap.mmap(file, 0, access=access)
    finally:
        os.close(file)
