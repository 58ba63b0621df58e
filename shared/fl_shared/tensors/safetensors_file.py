"""The head of a safetensors file (https://github.com/huggingface/safetensors, "Format").

A file is the length of the header (8 bytes, little-endian), the header (JSON), then the data of all tensors in order.
The library's own writer makes the same bytes, from a copy of every array.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

LENGTH_BYTES: Final = 8
"""Bytes of the header's length, at the start of a file."""


class Tensor(NamedTuple):
    """One array: ``shape`` in elements, row-major; ``size`` in bytes; ``dtype`` as the format names it."""

    name: str
    shape: Sequence[int]
    size: int
    dtype: str = "F32"


def file_head(tensors: Iterable[Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """All that stands before the data. Equal tensors and metadata give equal bytes."""
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
