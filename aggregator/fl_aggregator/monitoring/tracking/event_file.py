"""Writes TensorBoard's event files: records with a length and checksums, each a serialized ``Event``.

This module does not use tensorboardX, which imports torch wherever torch is installed, and writes in a thread
that ends when the disk is full and then blocks its callers (``docs/adr/0007``). Formats: `TFRecord`_,
`event.proto`_ and `summary.proto`_ of TensorFlow; CRC-32C of RFC 3720, appendix B.4, masked.

.. _TFRecord: https://www.tensorflow.org/tutorials/load_data/tfrecord
.. _event.proto: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/util/event.proto
.. _summary.proto: https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/framework/summary.proto
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fl_shared.system import varint
from fl_shared.system.files import write_all

_HEADER: Final = struct.Struct("<QI")
_CHECKSUM: Final = struct.Struct("<I")
MAX_RECORD: Final = 2**20


def _crc32c_table() -> tuple[int, ...]:
    rows = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        rows.append(byte)
    return tuple(rows)


_CRC32C: Final = _crc32c_table()


def _masked_crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _bytes_field(number: int, data: bytes) -> bytes:
    return varint.encode(number << 3 | 2) + varint.encode(len(data)) + data


def _encode_event(step: int, content: bytes) -> bytes:
    return b"\x09" + struct.pack("<d", time.time()) + b"\x10" + varint.encode(step) + content


class EventFile:
    """Writes a new event file at ``path``.

    If a call raises ``OSError``, the file is as it was before the call.

    A constructor that raises leaves no file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._complete_size = 0
        try:
            self._write(_encode_event(0, _bytes_field(3, b"brain.Event:2")))
        except OSError:
            self._file.close()
            path.unlink()
            raise

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes one number for each tag, as float32."""
        summary = b"".join(
            _bytes_field(1, _bytes_field(1, tag.encode()) + b"\x15" + struct.pack("<f", _float32(value)))
            for tag, value in values.items()
        )
        self._write(_encode_event(step, _bytes_field(5, summary)))

    def text(self, step: int, tag: str, text: str) -> None:
        """Writes a text, for TensorBoard's page of texts: a tensor of strings (type 7) of the plug-in ``text``."""
        plugin = _bytes_field(1, _bytes_field(1, b"text"))
        tensor = b"\x08\x07" + _bytes_field(2, _bytes_field(2, b"\x08\x01")) + _bytes_field(8, text.encode())
        value = _bytes_field(1, tag.encode()) + _bytes_field(9, plugin) + _bytes_field(8, tensor)
        self._write(_encode_event(step, _bytes_field(5, _bytes_field(1, value))))

    def discard_from(self, step: int) -> None:
        """Makes readers discard what this file and earlier files contain for ``step`` and later steps."""
        self._write(_encode_event(step, _bytes_field(7, b"\x08\x01")))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        record = b"".join(
            (length, _CHECKSUM.pack(_masked_crc(length)), event, _CHECKSUM.pack(_masked_crc(event)))
        )
        try:
            write_all(self._file, record)
        except OSError:
            # Readers stop at an incomplete record.
            self._file.seek(self._complete_size)
            self._file.truncate()
            raise
        self._complete_size += len(record)


def _float32(value: float) -> float:
    """The value, or infinity if it is too large for float32, as in numpy."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return value


def steps(path: Path) -> Iterator[int]:
    """The steps of the events in a file of `EventFile`, up to the first incomplete or damaged record."""
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            length, checksum = _HEADER.unpack(header)
            if checksum != _masked_crc(header[:8]) or length > MAX_RECORD:
                return
            event, checksum = file.read(length), file.read(_CHECKSUM.size)
            if len(checksum) < _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != _masked_crc(event):
                return
            step, shift, index = 0, 0, 10  # after the time, and the tag of the step
            while event[index] & 0x80:
                step |= (event[index] & 0x7F) << shift
                shift, index = shift + 7, index + 1
            yield step | event[index] << shift
