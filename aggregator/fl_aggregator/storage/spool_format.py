"""What a file of the spool looks like: an update's data, and behind it what the data is and which of it is here.

====================  ==========================================================================================
bytes                 what
====================  ==========================================================================================
size                  the data of all sections, one after the other; first, so that it lies aligned in a map
n                     `UpdateDescription`, JSON
8 × chunks            one little-endian number a chunk: its crc32 + 2^32 once it is here, else 0
24                    the footer: a magic, n and the number of chunks, each 8 bytes, little-endian
====================  ==========================================================================================

So a file can be read by somebody who knows nothing of its round: the first weights of a run say themselves what they
are, and an upload that was broken off goes on after a restart with what had not come. A chunk's number is written
after its data, and counts only if it is right: after a loss of power pages may be missing, in any order.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from fl_aggregator.storage.update_content import SectionContent, UpdateContent
from fl_shared.protocol import messages as m

_MAGIC: Final = b"FLSPOOL1"
_FOOTER: Final = struct.Struct("<8sQQ")
_ENTRY: Final = struct.Struct("<Q")
_RECEIVED_BIT: Final = 1 << 32


class SpoolFileDamaged(Exception):
    """A file of the spool that is none, or not whole."""


class UpdateDescription(BaseModel):
    """What the data is. ``chunks`` is 0 where the update came whole: such a file has all of it or is not there."""

    model_config = ConfigDict(frozen=True)

    digest: m.Digest
    sections: tuple[m.OfferedSection, ...]
    chunk_size: int = 0
    chunks: int = 0

    @classmethod
    def of_offer(cls, offer: m.Offer) -> Self:
        return cls(
            digest=offer.digest, sections=offer.sections, chunk_size=offer.chunk_size, chunks=offer.chunks
        )

    @classmethod
    def of_content(cls, content: UpdateContent) -> Self:
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
        """Bytes of the data."""
        return sum(section.size for section in self.sections)

    def trailer(self) -> bytes:
        """All of a new file that is behind the data."""
        text = self.model_dump_json(exclude_none=True).encode()
        return text + bytes(_ENTRY.size * self.chunks) + _FOOTER.pack(_MAGIC, len(text), self.chunks)

    def content(self, data: memoryview) -> UpdateContent:
        """The update; views of ``data``, which is ``size`` bytes."""
        contents = []
        start = 0
        for s in self.sections:
            contents.append(
                SectionContent(s.name, s.encoding, s.manifest, s.arrays, data[start : start + s.size])
            )
            start += s.size
        return UpdateContent(self.digest, tuple(contents))


class ChunkTable:
    """Which chunks are here, in the map of a file."""

    def __init__(self, file: mmap.mmap, description: UpdateDescription) -> None:
        self._file = file
        self._description = description
        self._start = len(file) - _FOOTER.size - _ENTRY.size * description.chunks

    def mark_received(self, index: int, crc32: int) -> None:
        """Chunk ``index`` is in its place."""
        _ENTRY.pack_into(self._file, self._start + _ENTRY.size * index, crc32 | _RECEIVED_BIT)

    def received_chunks(self) -> bytearray:
        """One byte a chunk: 1 if it is here, and as it was when it came. Reads all that is here."""
        size, length = self._description.size, self._description.chunk_size
        here = bytearray(self._description.chunks)
        with memoryview(self._file) as whole, whole[:size] as data:
            for index in range(len(here)):
                (entry,) = _ENTRY.unpack_from(self._file, self._start + _ENTRY.size * index)
                if entry:
                    with data[index * length : (index + 1) * length] as chunk:
                        here[index] = entry == zlib.crc32(chunk) | _RECEIVED_BIT
        return here


def read_description(file: mmap.mmap) -> UpdateDescription:
    """What a file's data is. Raises ``SpoolFileDamaged``."""
    if len(file) < _FOOTER.size:
        raise SpoolFileDamaged(f"{len(file)} bytes, expected at least {_FOOTER.size}")
    magic, length, chunks = _FOOTER.unpack_from(file, len(file) - _FOOTER.size)
    if magic != _MAGIC:
        raise SpoolFileDamaged("it does not end like a spool file")
    end = len(file) - _FOOTER.size - _ENTRY.size * chunks
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
