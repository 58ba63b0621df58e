"""The sections of a model or an update: named, contiguous vectors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Manifest

WEIGHTS: Final = "weights"
"""The name of the section that every model has: its weights."""
DELTA: Final = "delta"
"""The section of an update that every update has: local − base, or in round 0 the first weights."""

LARGE: Final = "large"
"""The section of a sum that counts large values of buffers (protocol, 5.21); it is left out if there are none."""


SHARES: Final = "shares"
TALLIES: Final = "tallies"
"""The sections of a masked update besides its delta (protocol, 10.4)."""


@dataclass(frozen=True, slots=True)
class ModelSection:
    """One section with its content: ``data`` holds ``manifest.values`` values in the encoding."""

    name: str
    manifest: Manifest
    data: bytes | memoryview = field(repr=False)
    encoding: str = FLOAT32.name


def parts_of(data: memoryview, sizes: Mapping[str, int]) -> dict[str, memoryview]:
    """Returns views of the parts of ``data``, which lie one after the other. ``sizes``: bytes of each, by name."""
    ends = itertools.accumulate(sizes.values())
    return {name: data[end - size : end] for (name, size), end in zip(sizes.items(), ends, strict=True)}


def model_digest(sections: Sequence[ModelSection]) -> str:
    """The digest of a model or an update (protocol, 3.4), from its sections in the order of their names."""
    return content_digest((s.name, s.encoding, s.manifest.digest, s.data) for s in sections)
