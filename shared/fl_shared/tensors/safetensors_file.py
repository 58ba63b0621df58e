"""Builds and reads the header of a safetensors file (https://github.com/huggingface/safetensors, "Format").

A file consists of the length of the header (8 bytes, little-endian), the header (JSON) and the data of all
tensors in order. The library's own writer makes the same bytes, but from a copy of every array.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, Final, NamedTuple

LENGTH_BYTES: Final = 8
"""The size in bytes of the header's length, at the start of a file."""


class Tensor(NamedTuple):
    """One array of the file: ``shape`` in elements, row-major; ``size`` in bytes."""

    name: str
    shape: Sequence[int]
    size: int
    dtype: str = "F32"


def file_head(tensors: Iterable[Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a file before its data. Equal tensors and metadata give equal bytes."""
    fields: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for tensor in tensors:
        stop = start + tensor.size
        fields[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


class Head(NamedTuple):
    """What a file says before its data. ``size``: bytes of the header with its length, where the data begins."""

    metadata: dict[str, str]
    tensors: tuple[Tensor, ...]
    size: int


def read_head(file: IO[bytes]) -> Head:
    """Reads the header of a file of ours, and leaves ``file`` where its data begins. Raises ``OSError``."""
    size = int.from_bytes(file.read(LENGTH_BYTES), "little")
    fields = json.loads(file.read(size))
    metadata = fields.pop("__metadata__", {})
    tensors = (
        Tensor(name, field["shape"], field["data_offsets"][1] - field["data_offsets"][0], field["dtype"])
        for name, field in fields.items()
    )
    return Head(metadata, tuple(tensors), LENGTH_BYTES + size)
