"""What each encoding means, in the plainest way: what the product decodes block by block is held against it."""

from __future__ import annotations

import math
import zlib

import numpy as np

from fl_shared.tensors.manifest import Manifest, Vector


def section_values(encoding: str, data: bytes, manifest: Manifest) -> Vector:
    """The values of a section, whose data must be right. An encoding that loses something has the buffers in front."""
    if encoding in ("f32", "shuffle-deflate", "raw") or encoding.startswith("masked"):
        return _values(encoding, data, manifest.values)
    is_buffer = np.concatenate([np.full(one.values, one.role == "buffer") for one in manifest.arrays])
    vector, end = np.empty(manifest.values, np.float32), 4 * int(is_buffer.sum())
    vector[is_buffer] = np.frombuffer(data[:end], "<f4")
    vector[~is_buffer] = _values(encoding, data[end:], int((~is_buffer).sum()))
    return vector


def _values(encoding: str, data: bytes, values: int) -> Vector:
    kind, _, parameter = encoding.partition(":")
    match kind:
        case "f32":
            return np.frombuffer(data, "<f4")
        case "bf16":
            return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        case "q8":
            blocks = math.ceil(values / 256)
            scales, integers = (
                np.frombuffer(data, "<f4", blocks),
                np.frombuffer(data, np.int8, -1, 4 * blocks),
            )
            return np.repeat(scales, 256)[:values] * integers.astype(np.float32)
        case "topk":
            count = math.ceil(float(parameter) * values)
            vector = np.zeros(values, np.float32)
            vector[np.frombuffer(data, "<u4", count)] = np.frombuffer(data, "<f4", count, 4 * count)
            return vector
        case "shuffle-deflate":
            return _unpacked(data, values)
        case "raw":
            return np.array([float(byte) for byte in data], np.float32)
        case "masked32" | "masked40" | "masked48" | "masked64":
            size = len(data) // values
            words = [data[place : place + size] for place in range(0, len(data), size)]
            return np.array([int.from_bytes(word, "little", signed=True) for word in words]).astype(
                np.float32
            )
    raise AssertionError(encoding)


def _unpacked(data: bytes, values: int) -> Vector:
    blocks = math.ceil(values / 2**14)
    lengths, place, found = np.frombuffer(data, "<u2", 4 * blocks).tolist(), 8 * blocks, b""
    for block in range(blocks):
        size = min(2**14, values - 2**14 * block)
        planes = []
        for length in lengths[4 * block : 4 * block + 4]:
            plane = data[place : place + length]
            planes.append(plane if length == size else zlib.decompress(plane, -15))
            place += length
        found += bytes(byte for value in zip(*planes, strict=True) for byte in value)
    return np.frombuffer(found, "<f4")
