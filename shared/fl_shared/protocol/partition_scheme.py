"""How a data set is split into the edges' partitions: the grammar of ``messages.Partition.scheme``.

``iid`` | ``shards`` | ``dirichlet:ALPHA`` | ``quantity:ALPHA`` | ``natural`` | ``own``. The aggregator names a scheme,
the edges apply it (``fl_edge.data.partition``); both parse it with ``parse_scheme``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

SCHEMES: Final = ("iid", "shards", "dirichlet:ALPHA", "quantity:ALPHA", "natural", "own")
GRAMMAR: Final = f"{', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}"
MIN_ALPHA: Final = 1e-3
MAX_ALPHA: Final = 1e6


@dataclass(frozen=True, slots=True)
class Iid:
    """Partitions of equal size, drawn uniformly."""


@dataclass(frozen=True, slots=True)
class Shards:
    """The data is sorted by label and cut into two shards per partition.

    Most partitions then have two classes (McMahan et al. 2017, §3).
    """


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


PartitionScheme = Iid | Shards | Dirichlet | Quantity | Natural | OwnData


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
        case "dirichlet", ":":
            return Dirichlet(_alpha(text, argument))
        case "quantity", ":":
            return Quantity(_alpha(text, argument))
        case (("dirichlet" | "quantity"), ""):
            raise ValueError(f"partition {text!r}: ALPHA is missing; expected, for example, {name}:0.5")
        case _:
            raise ValueError(f"partition {text!r}: expected {GRAMMAR}")


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
