"""What edges can do in training besides plain SGD, by name (protocol, 4.11). The names of corrections are others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

BF16: Final = "bf16"
"""Trains in bf16: with torch, on a device that multiplies bf16 numbers itself (`fl_edge.training.precision`)."""
BF16_HINT: Final = "torch 2.11 or later, on a processor or GPU that multiplies bf16 numbers itself"
CLIP_GRADIENTS: Final = "clip-gradients"
LOGIT_ADJUSTMENT: Final = "logit-adjustment"
TICKETS: Final = "tickets"
"""Takes up work that is for this edge alone, and outlives rounds (protocol, 5.19)."""


def needed(
    correction: str | None,
    clip_gradients: float,
    logit_adjustment: float,
    *,
    bf16: bool = False,
    tickets: bool = False,
) -> tuple[str, ...]:
    """Returns the abilities that a training with these settings needs; ``correction`` is the name of one, or null.

    ``bf16``: whether its precision is that. ``tickets``: whether the run is asynchronous.
    """
    asked = (
        (CLIP_GRADIENTS, clip_gradients),
        (LOGIT_ADJUSTMENT, logit_adjustment),
        (BF16, bf16),
        (TICKETS, tickets),
    )
    return (*([correction] if correction else []), *(name for name, value in asked if value))


def lacking(needed: Iterable[str], has: Collection[str]) -> str | None:
    """Says which of the needed abilities an edge lacks that ``has`` others; null if it lacks none."""
    missing = next((name for name in needed if name not in has), None)
    if missing is None:
        return None
    hint = f" ({BF16_HINT})" if missing == BF16 else ""
    return f"the run needs {missing}{hint}; this edge has {', '.join(has) or 'none'}"
