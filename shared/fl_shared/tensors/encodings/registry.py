"""All encodings by name. A new encoding needs a module with a class, and an argument of `checked` here."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import AfterValidator, WithJsonSchema

from fl_shared.tensors.encodings.bfloat16 import BFLOAT16
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.int8 import INT8
from fl_shared.tensors.encodings.integers import SUM
from fl_shared.tensors.encodings.interface import Encoding, Family, sizes_text
from fl_shared.tensors.encodings.masked import MASKED, RAW
from fl_shared.tensors.encodings.shuffle import SHUFFLE_DEFLATE
from fl_shared.tensors.encodings.topk import TOPK
from fl_shared.tensors.manifest import Vector

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_PARAMETER: Final = re.compile(r"[a-z0-9.=_-]{1,32}")
_PROBE: Final = np.array([0.0, -1.5, 0.25], np.float32)


def checked(*given: Encoding | Family) -> dict[str, Encoding | Family]:
    """The encodings by name. Raises ``ValueError`` if one contradicts itself or two have the same name."""
    found: dict[str, Encoding | Family] = {}
    for one in given:
        name = one.name
        if not _NAME.fullmatch(name):
            raise ValueError(f"encoding {name!r}: expected a name that matches {_NAME.pattern}")
        if name in found:
            raise ValueError(f"encoding {name!r}: there are two of that name")
        _check(name, one.of(one.example) if isinstance(one, Family) else one)
        found[name] = one
    return found


def _check(name: str, encoding: Encoding) -> None:
    data, decoded = encoding.encode(_PROBE, seed=0), np.full_like(_PROBE, np.nan)
    if len(data) not in (sizes := encoding.sizes(len(_PROBE))):
        raise ValueError(
            f"encoding {name!r}: sizes: {sizes_text(sizes)}, but it encodes to {len(data)} bytes"
        )
    encoding.decode_block(data, len(_PROBE), 0, decoded)
    last: Vector = np.empty(1, np.float32)
    encoding.decode_block(data, len(_PROBE), len(_PROBE) - 1, last)
    if last[0] != decoded[-1]:
        raise ValueError(f"encoding {name!r}: decodes other values in blocks")
    if not encoding.lossy and not np.array_equal(decoded, _PROBE):
        raise ValueError(f"encoding {name!r}: decodes to other values, but says that it is not lossy")
    if not np.abs(decoded).max() <= encoding.check(data, len(_PROBE), most=2.0):
        raise ValueError(f"encoding {name!r}: check: finds a smaller magnitude than it decodes")


ENCODINGS: Final = checked(FLOAT32, SHUFFLE_DEFLATE, BFLOAT16, INT8, TOPK)
_OF_INTEGERS: Final[tuple[Encoding, ...]] = (SUM, *MASKED.values(), RAW)
OF_INTEGERS: Final = {one.name: one for one in _OF_INTEGERS}
"""The encodings of sections that are no vectors of floats. No edge offers them, and no run asks for them by name."""


def names() -> tuple[str, ...]:
    """The names of all encodings, without parameters, in ascending order: what an edge offers."""
    return tuple(sorted(ENCODINGS))


def kind_of(name: str) -> str:
    """The name of an encoding without its parameter, by which edges offer it."""
    return name.partition(":")[0]


def parse(text: str) -> Encoding:
    """The encoding that a user means by ``text``, whose ``name`` may be written in another way.

    Raises ``ValueError`` that says what was expected.
    """
    kind, colon, parameter = text.partition(":")
    if kind not in ENCODINGS:
        raise ValueError(f"{text[:32]!r}, expected {expected()}")
    found = ENCODINGS[kind]
    if not isinstance(found, Family):
        if colon:
            raise ValueError(f"{text[:64]!r}, expected {kind!r}, which has no parameter")
        return found
    try:
        if not _PARAMETER.fullmatch(parameter):
            raise ValueError(parameter)
        return found.of(parameter)
    except ValueError:
        example = f"{found.name}:{found.example}"
        raise ValueError(f"{text[:64]!r}, expected {found.expected}: for example {example!r}") from None


def get(name: str) -> Encoding:
    """The encoding called ``name`` in messages, those of integers too. Raises ``ValueError`` for an unknown name."""
    encoding = OF_INTEGERS.get(name) or parse(name)
    if encoding.name != name:
        raise ValueError(f"{name[:64]!r}, expected {encoding.name!r}: a name has one form")
    return encoding


def expected() -> str:
    """All names of encodings, as the text of an error lists them."""
    return " or ".join(repr(_pattern(one)) for one in names())


def _pattern(name: str) -> str:
    one = ENCODINGS[name]
    return f"{name}:{one.example}" if isinstance(one, Family) else name


def _checked_section(name: str) -> str:
    get(name)
    return name


def _checked_run(name: str) -> str:
    if name in OF_INTEGERS:
        raise ValueError(f"{name!r}, expected {expected()}")
    return _checked_section(name)


def _schema(*others: str) -> WithJsonSchema:
    alternatives = (
        f"{name}:{_PARAMETER.pattern}" if isinstance(one, Family) else name
        for name, one in sorted(ENCODINGS.items())
    )
    return WithJsonSchema({"type": "string", "pattern": f"^({'|'.join([*alternatives, *others])})$"})


KnownEncoding = Annotated[str, AfterValidator(_checked_run), _schema()]
"""The name of an encoding that is in the registry, as it is in messages."""
ModelEncoding = Literal["f32", "bf16"]
"""The encoding of a model that is published: one that edges can train from."""
SectionEncoding = Annotated[str, AfterValidator(_checked_section), _schema(*OF_INTEGERS)]
"""The encoding of a section of an update: one of the registry, or one of integers."""
