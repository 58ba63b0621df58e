"""Sections of a model or an update: named, each one contiguous vector."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fl_shared.tensors.encodings.registry import Encoding
from fl_shared.tensors.manifest import Manifest, content_digest


@dataclass(frozen=True, slots=True)
class ModelSection:
    """``data``: ``manifest.values`` little-endian float32 values, 4 bytes each."""

    name: str
    manifest: Manifest
    data: bytes | memoryview = field(repr=False)
    encoding: Encoding = "f32"


def model_digest(sections: Sequence[ModelSection]) -> str:
    """The digest of a model or an update (protocol, 3.4). Sections in the order of their names."""
    return content_digest((s.name, s.encoding, s.manifest.digest, s.data) for s in sections)
