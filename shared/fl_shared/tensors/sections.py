"""Sections of a model or an update: named, each one contiguous vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Manifest, content_digest

WEIGHTS: Final = "weights"
"""The section of a model that every model has: its weights."""
DELTA: Final = "delta"
"""The section of an update that every update has: local − base, or in round 0 the first weights."""


@dataclass(frozen=True, slots=True)
class ModelSection:
    """``data``: the ``manifest.values`` values of the section in its encoding."""

    name: str
    manifest: Manifest
    data: bytes | memoryview = field(repr=False)
    encoding: str = FLOAT32.name


def model_digest(sections: Sequence[ModelSection]) -> str:
    """The digest of a model or an update (protocol, 3.4). Sections in the order of their names."""
    return content_digest((s.name, s.encoding, s.manifest.digest, s.data) for s in sections)
