"""How much an update counts whose base is several versions old (Xie et al. 2019, section 5.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

STALENESS_METAVAR: Final = "polynomial:A|hinge:A,B|constant"
_PLACES: Final = 2.0**30

Staleness = Callable[[int], float]
"""Returns the factor of an update, above 0 and at most 1, by the versions that were made since its base."""


def parse_staleness(text: str) -> Staleness:
    """Returns the function that ``text`` names. Raises ``ValueError``.

    With τ versions since the base: ``polynomial:A`` is (1 + τ)^−A; ``hinge:A,B`` is 1 up to τ = B, and beyond
    1 / (1 + A (τ − B)); ``constant`` is 1.
    """
    kind, separator, values = text.partition(":")
    numbers = _numbers(values) if separator else ()
    match kind, numbers:
        case "constant", () if not separator:
            return lambda _: 1.0
        case "polynomial", (a,) if 0 < a <= 100:
            return lambda versions: _rounded((1.0 + versions) ** -a)
        case "hinge", (a, b) if 0 < a <= 100 and 0 <= b <= 1000:
            return lambda versions: _rounded(1.0 / (1.0 + a * max(0.0, versions - b)))
        case _:
            raise ValueError(
                "expected constant, polynomial:A such as polynomial:0.5, or hinge:A,B such as hinge:10,4, "
                "with A above 0 and at most 100, and B from 0 to 1000"
            )


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        return (math.nan,)


def _rounded(factor: float) -> float:
    """Rounds to 30 binary places, so that every machine's power function gives the same; never to 0."""
    return max(1.0, round(factor * _PLACES)) / _PLACES
