"""Which kind a part is of."""

from __future__ import annotations

from typing import Any

from fl_aggregator.aggregation.strategies.checked_parts.combinations import (
    CheckedCoordinates,
    CheckedGram,
    CheckedSelection,
    CheckedSum,
    CheckedTransform,
)
from fl_aggregator.aggregation.strategies.checked_parts.optimizers import (
    CheckedCorrection,
    CheckedOptimizer,
    CheckedReporter,
)
from fl_aggregator.aggregation.strategies.checked_parts.part import CheckedPart


def checked_part(part: Any, max_examples: int) -> CheckedPart:
    """Returns the part with checks. Raises ``AssertionError`` if it is of no kind, or lacks what its kind has."""
    kinds = (
        CheckedSum,
        CheckedGram,
        CheckedCoordinates,
        CheckedOptimizer,
        CheckedCorrection,
        CheckedTransform,
    )
    shared = ("wants_norms", "min_updates", "state", "name")
    complete = (kind for kind in kinds if all(hasattr(part, one) for one in kind.members))
    meant = (kind for kind in kinds if any(hasattr(part, one) for one in kind.members if one not in shared))
    kind: type[CheckedPart] | None = next(complete, None) or next(meant, None)
    name = type(part).__name__
    if kind is None:
        raise AssertionError(
            f"{name}: is no combination, server optimizer, transform or correction, expected one (see parts)"
        )
    lacks = [one for one in kind.members if not hasattr(part, one)]
    if lacks:
        raise AssertionError(
            f"{name}: has no {' and no '.join(lacks)}, expected {', '.join(kind.members)} (see parts)"
        )
    if kind is CheckedCoordinates and hasattr(part, "choose"):
        kind = CheckedSelection
    if kind is CheckedOptimizer and hasattr(part, "report"):
        kind = CheckedReporter
    return kind(part, max_examples)
