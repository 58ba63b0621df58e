"""Reduces a PNG or JPEG to what its pixels need, before a decoder sees it. Imports no Pillow.

Comments, profiles, previews and texts cost a decoder more than the pixels, if there are enough of them. So only the
parts that pixels need are handed on, and their number is limited.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from fl_edge.errors import PayloadError

MAX_PARTS: Final = 10_000
"""Chunks of a PNG, or segments before the pixels of a JPEG. Programs that write a chunk for each row need 4,096."""
MAX_SCANS: Final = 64
"""Of a JPEG with several, each of which visits all pixels. Programs write about ten."""

PNG: Final = b"\x89PNG\r\n\x1a\n"
JPEG: Final = b"\xff\xd8\xff"

_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_SEGMENT: Final = re.compile(rb"\xff+([\xc0-\xcf\xda-\xef\xfe])(..)", re.DOTALL)
_SOS: Final = 0xDA
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN: Final = frozenset({0xC0, 0xC1, 0xC2})
_SEGMENTS: Final = _HUFFMAN | {0xC4, _SOS, 0xDB, 0xDD, 0xE0, 0xEE}
"""Frames, their tables, and the JFIF and Adobe segments, which say what the colours are."""
_EXIF: Final = b"Exif\0\0"
_ORIENTATION: Final = 0x0112


@dataclass(frozen=True, slots=True)
class PictureFile:
    """``data``: a file with the same pixels. ``orientation``: as EXIF has it, 1 if it is unknown.

    ``several_scans``: all pixels of a JPEG are in memory before it can be decoded at a reduced size.
    """

    data: bytes
    orientation: int
    several_scans: bool = False


def reduced_png(payload: bytes) -> PictureFile:
    """Keeps the chunks that the pixels need. Raises ``PayloadError``; ``struct.error`` for a chunk without a head."""
    parts, exif, at = [payload[: len(PNG)]], b"", len(PNG)
    for _ in range(MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", payload, at)
        start, at = at, at + 12 + length
        if kind in _CHUNKS:
            parts.append(payload[start:at])
        elif kind == b"eXIf":
            exif = payload[start + 8 : at - 4]
        if kind == b"IEND":
            return PictureFile(b"".join(parts), _orientation(exif))
    raise PayloadError(f"the PNG has more chunks than expected: at most {MAX_PARTS}")


def reduced_jpeg(payload: bytes) -> PictureFile:
    """Keeps the segments that the pixels need. Raises ``PayloadError``; ``IndexError`` for a segment that is too short.

    The pixels begin after the first SOS. Before it, a preview in an APP segment may have scans, too.
    """
    parts, exif, at = [payload[:2]], b"", 2
    progressive, components = False, 0
    for _ in range(MAX_PARTS):
        found = _SEGMENT.match(payload, at)
        if found is None:
            raise PayloadError(f"the JPEG cannot be read: no segment at byte {at}")
        kind, start, body = found[1][0], found.end() - 4, found.end()
        at = start + 2 + int.from_bytes(found[2])
        if kind in _FRAMES:
            if kind not in _HUFFMAN:
                raise PayloadError(f"the JPEG is coded as SOF{kind - 0xC0}, expected SOF0, SOF1 or SOF2")
            progressive, components = kind == 0xC2, payload[body + 5]
        if kind in _SEGMENTS:
            parts.append(payload[start:at])
        elif kind == 0xE1 and not exif and payload.startswith(_EXIF, body):
            exif = payload[body + len(_EXIF) : at]
        if kind == _SOS:
            several = progressive or payload[body] < components
            # In the pixels, 0xFF is followed by 0x00 or a restart marker, so these bytes begin a scan.
            scans = 1 + payload.count(b"\xff\xda", at)
            if several and scans > MAX_SCANS:
                raise PayloadError(f"the JPEG has {scans} scans, expected at most {MAX_SCANS}")
            data = b"".join([*parts, memoryview(payload)[at:]])
            return PictureFile(data, _orientation(exif), several)
    raise PayloadError(f"the JPEG has more segments before its pixels than expected: at most {MAX_PARTS}")


def _orientation(exif: bytes) -> int:
    """Returns the orientation in the first directory of a TIFF file; 1 if there is none."""
    order = "<" if exif.startswith(b"II") else ">"
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == _ORIENTATION:
                return int(value)
    except struct.error:
        pass
    return 1
