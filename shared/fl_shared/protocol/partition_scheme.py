"""How a data set is split into the edges' partitions: the grammar of ``messages.Partition.scheme``.

``iid`` | ``shards`` | ``pathological:K`` | ``dirichlet:ALPHA`` | ``quantity:ALPHA`` | ``natural`` | ``own``. The
aggregator names a scheme, the edges apply it (``fl_edge.data.partition``); both parse it with ``parse_scheme``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

SCHEMES: Final = ("iid", "shards", "pathological:K", "dirichlet:ALPHA", "quantity:ALPHA", "natural", "own")
GRAMMAR: Final = f"{', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}"
MIN_ALPHA: Final = 1e-3
MAX_ALPHA: Final = 1e6
MAX_K: Final = 1000


@dataclass(frozen=True, slots=True)
class Iid:
    """Partitions of equal size, drawn uniformly."""


@dataclass(frozen=True, slots=True)
class Shards:
    """The data is sorted by label and cut into two shards per partition.

    Most partitions then have two classes (McMahan et al. 2017, §3).
    """


@dataclass(frozen=True, slots=True)
class Pathological:
    """Each partition has exactly ``classes`` classes; each class belongs to equally many partitions, to one.

    The name is from McMahan et al. 2017, §3, whose shards give about two classes to each.
    """

    classes: int


@dataclass(frozen=True, slots=True)
class Dirichlet:
    """Label skew: each class is spread over the partitions by its own draw from Dirichlet(``alpha``)."""

    alpha: float


@dataclass(frozen=True, slots=True)
class Quantity:
    """Size skew: the sizes of the partitions are one draw from Dirichlet(``alpha``), the contents uniform."""

    alpha: float


@dataclass(frozen=True, slots=True)
class Natural:
    """The data's own division: partition k is the k-th of its files (sorted by name), sites, speakers or the like."""


@dataclass(frozen=True, slots=True)
class OwnData:
    """No partitions: every edge uses all the data that it has."""


PartitionScheme = Iid | Shards | Pathological | Dirichlet | Quantity | Natural | OwnData


def parse_scheme(text: str) -> PartitionScheme:
    """Parses a scheme. Raises ``ValueError``, which names the text and what was expected."""
    name, colon, argument = text.partition(":")
    match name, colon:
        case "iid", "":
            return Iid()
        case "shards", "":
            return Shards()
        case "natural", "":
            return Natural()
        case "own", "":
            return OwnData()
        case "pathological", ":":
            return Pathological(_classes(text, argument))
        case "dirichlet", ":":
            return Dirichlet(_alpha(text, argument))
        case "quantity", ":":
            return Quantity(_alpha(text, argument))
        case (("dirichlet" | "quantity"), ""):
            raise ValueError(f"partition {text!r}: ALPHA is missing; expected, for example, {name}:0.5")
        case "pathological", "":
            raise ValueError(f"partition {text!r}: K is missing; expected, for example, pathological:2")
        case _:
            raise ValueError(f"partition {text!r}: expected {GRAMMAR}")


def _classes(text: str, argument: str) -> int:
    if not (re.fullmatch("[0-9]{1,4}", argument) and 1 <= int(argument) <= MAX_K):
        raise ValueError(f"partition {text!r}: K is {argument!r}, expected a whole number from 1 to {MAX_K}")
    return int(argument)


def _alpha(text: str, argument: str) -> float:
    try:
        alpha = float(argument)
    except ValueError:
        raise ValueError(f"partition {text!r}: ALPHA is {argument!r}, expected a number") from None
    if not (math.isfinite(alpha) and MIN_ALPHA <= alpha <= MAX_ALPHA):
        raise ValueError(
            f"partition {text!r}: ALPHA is {argument}, expected {MIN_ALPHA:g} (very uneven) "
            f"to {MAX_ALPHA:g} (nearly even)"
        )
    return alpha
