"""Leaves out cells: numbers of examples that have something in common, and are fewer than some least number.

Zero is shown, as it is about nobody. If one small cell could be computed from the total and the cells beside it, the
next smallest is left out, too ("secondary suppression": Hundepool et al. 2012, "Statistical Disclosure Control", 4.3).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class Cells(BaseModel):
    """Cells by name. ``others``: how many were left out, with ``others_examples`` together; null if that is too few."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shown: dict[str, int]
    others: int = 0
    others_examples: int | None = 0


def is_small(count: int, least: int) -> bool:
    """Whether a number of examples is not shown."""
    return 0 < count < least


def shown(count: int, least: int) -> int | None:
    """Returns the number, or null if it is not shown."""
    return None if is_small(count, least) else count


def cells_of(counts: Mapping[str, int], least: int) -> Cells:
    """Returns the ``counts`` that are shown, in their order."""
    hidden = {name for name, count in counts.items() if is_small(count, least)}
    ranked = sorted((count, name) for name, count in counts.items() if count and name not in hidden)
    total = sum(counts[name] for name in hidden)
    for count, name in ranked:
        if not is_small(total, least):
            break
        hidden.add(name)
        total += count
    return Cells(
        shown={name: count for name, count in counts.items() if name not in hidden},
        others=len(hidden),
        others_examples=shown(total, least),
    )
