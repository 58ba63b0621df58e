"""Draws secret cohorts: each edge with the same probability, independently (see `round.drawing`)."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from typing import Final

_BITS: Final = 53
"""Of a uniform number: as many as a float has, so that a probability is met to 2^-53."""


def draw(eligible: Iterable[str], rate: float, round_number: int, seed: int | None) -> tuple[str, ...]:
    """Returns the drawn edges, in their order. With a ``seed``, they follow from it, and are no secret."""
    return tuple([name for name in eligible if _uniform(name, round_number, seed) < rate * 2.0**_BITS])


def _uniform(name: str, round_number: int, seed: int | None) -> int:
    if seed is None:
        return secrets.randbits(_BITS)
    text = f"fl-mqtt insecure draw\0{seed}\0{round_number}\0{name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> (64 - _BITS)
