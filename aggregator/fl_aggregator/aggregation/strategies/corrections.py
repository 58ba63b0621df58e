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


@dataclass(frozen=True, slots=True)
class Scaffold:
    """SCAFFOLD: edges train with g + (c − cᵢ) (Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1), made safe.

    cᵢ is the mean of the edge's own gradients on its last way, which for plain SGD is the paper's option II, and right
    with momentum, too. c ← (H c + Σ nᵢ (cᵢ⁺ − cᵢ)) / H⁺ is the mean of cᵢ over the H examples of the edges heard so far
    (H⁺: with this round). nᵢ are the examples that an edge had when it was first heard. An edge without cᵢ is not
    corrected.

    ``bound``: c − cᵢ is at most so many times as long as g; 0: any length. With few classes an edge, it may otherwise
    throw the model away: 1 and 0.5 have each cost a model (docs/learning.md).
    """

    name: ClassVar[str] = "scaffold"
    sections: ClassVar[tuple[str, ...]] = ("control",)
    bound: Annotated[float, Field(ge=0, le=1e6)] = 0.25

    def state(self) -> Mapping[str, float]:
        return {"control": 0.0}

    def absorb(self, block: Block, closed: ClosedRound) -> None:
        before, after = closed.heard
        control = block.state["control"]
        control *= before / after
        control += block.sections["control"] * (closed.examples / after)
