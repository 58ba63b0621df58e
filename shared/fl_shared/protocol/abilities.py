"""What edges can do in training besides plain SGD, by name (protocol, 4.11). The names of corrections are others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

CLIP_GRADIENTS: Final = "clip-gradients"
LOGIT_ADJUSTMENT: Final = "logit-adjustment"
TICKETS: Final = "tickets"
"""Takes up work that is for this edge alone, and outlives rounds (protocol, 5.19)."""


def needed(
    correction: str | None, clip_gradients: float, logit_adjustment: float, *, tickets: bool = False
) -> tuple[str, ...]:
    """Returns the abilities that a training with these settings needs; ``correction`` is the name of one, or null.

    ``tickets``: whether the run is asynchronous.
    """
    asked = ((CLIP_GRADIENTS, clip_gradients), (LOGIT_ADJUSTMENT, logit_adjustment), (TICKETS, tickets))
    return (*([correction] if correction else []), *(name for name, value in asked if value))


def lacking(needed: Iterable[str], has: Collection[str]) -> str | None:
    """Says which of the needed abilities an edge lacks that ``has`` others; null if it lacks none."""
    missing = next((name for name in needed if name not in has), None)
    return None if missing is None else f"the run needs {missing}; this edge has {', '.join(has) or 'none'}"
