"""All encodings by name. A new encoding needs a module with a class, and an argument of `checked` here."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import AfterValidator, WithJsonSchema

from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.integers import SUM
from fl_shared.tensors.encodings.interface import Encoding

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_PROBE: Final = np.array([0.0, -1.5, 0.25], np.float32)


def checked(*encodings: Encoding) -> dict[str, Encoding]:
    """The encodings by name. Raises ``ValueError`` if one contradicts itself or two have the same name."""
    found: dict[str, Encoding] = {}
    for encoding in encodings:
        name = encoding.name
        if not _NAME.fullmatch(name):
            raise ValueError(f"encoding {name!r}: expected a name that matches {_NAME.pattern}")
        if name in found:
            raise ValueError(f"encoding {name!r}: there are two of that name")
        if encoding.granularity < 1:
            raise ValueError(f"encoding {name!r}: granularity: {encoding.granularity}, expected at least 1")
        data, out = encoding.encode(_PROBE, seed=0), np.empty_like(_PROBE)
        if len(data) != encoding.size(len(_PROBE)):
            raise ValueError(
                f"encoding {name!r}: size: {encoding.size(len(_PROBE))}, but it encodes to {len(data)} bytes"
            )
        if encoding.decode(data).shape != _PROBE.shape or encoding.decode(data, out) is not out:
            raise ValueError(f"encoding {name!r}: does not decode what it has encoded")
        if not encoding.lossy and not np.array_equal(out, _PROBE):
            raise ValueError(f"encoding {name!r}: decodes to other values, but says that it is not lossy")
        encoding.check(data, most=2.0)
        found[name] = encoding
    return found


ENCODINGS: Final = checked(FLOAT32)


def names() -> tuple[str, ...]:
    """The names of all encodings, in ascending order."""
    return tuple(sorted(ENCODINGS))


def get(name: str) -> Encoding:
    """The encoding called ``name``, that of sums included. Raises ``ValueError`` for an unknown name."""
    if name == SUM.name:
        return SUM
    if name not in ENCODINGS:
        raise ValueError(f"{name[:32]!r}, expected {expected()}")
    return ENCODINGS[name]


def expected() -> str:
    """All names of encodings, as the text of an error lists them."""
    return " or ".join(map(repr, names()))


def _known(name: str) -> str:
    if name not in ENCODINGS:
        raise ValueError(f"expected {expected()}")
    return name


KnownEncoding = Annotated[
    str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": list(names())})
]
"""The name of an encoding that is in the registry."""
SectionEncoding = KnownEncoding | Literal["sum"]
"""The encoding of a section of an update."""
