"""Transforms: what scales single updates, whatever becomes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fl_aggregator.aggregation.strategies.parts import Contribution


@dataclass(frozen=True, slots=True)
class Clip:
    """Δ ← Δ min(1, C / ‖Δ‖): no update is longer than C (Sun et al. 2019, arXiv:1911.07963, section 4).

    ``norm``: C. ``--similarity`` shows the median norm of the updates of a run.
    """

    wants_norms: ClassVar[bool] = True
    norm: Annotated[float, Field(gt=0)]

    def factor(self, update: Contribution) -> float:
        assert update.norm is not None
        return 1.0 if update.norm <= self.norm else self.norm / update.norm
