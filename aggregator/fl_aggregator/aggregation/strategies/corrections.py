"""Corrections: the aggregator's half of what edges add to their gradients; the other is in `fl_edge.training`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from fl_aggregator.aggregation.strategies.parts import Block, ClosedRound


@dataclass(frozen=True, slots=True)
class Prox:
    """FedProx: edges train with g + μ(w − w₀), w₀ the base (Li et al. 2020, arXiv:1812.06127, equation 2).

    ``mu``: μ. 0 is FedAvg; the paper tries 0.001 to 1, more for edges that differ more.
    """

    name: ClassVar[str] = "prox"
    sections: ClassVar[tuple[str, ...]] = ()
    mu: Annotated[float, Field(ge=0, le=1000)] = 0.01

    def state(self) -> Mapping[str, float]:
        return {}

    def absorb(self, block: Block, closed: ClosedRound) -> None:
        """Does nothing: edges return nothing."""
