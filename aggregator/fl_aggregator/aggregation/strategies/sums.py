"""Combinations that are one exact sum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from pydantic import Field

from fl_aggregator.aggregation.strategies.parts import ClosedRound, Contribution

_PLACES: Final = 30
"""Binary places of a power: those that follow depend on the machine."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Σ nₖ Δₖ / Σ nₖ, nₖ the examples of an edge (McMahan et al. 2017, arXiv:1602.05629, algorithm 1).

    ``equal``: each edge counts the same.
    """

    wants_norms: ClassVar[bool] = False
    equal: bool = False

    def max_weight(self, max_examples: int) -> float:
        return 1.0 if self.equal else float(max_examples)

    def weight(self, update: Contribution) -> float:
        return 1.0 if self.equal else float(update.examples)

    def divisor(self, closed: ClosedRound) -> float:
        return float(len(closed.contributions) if self.equal else closed.examples)


@dataclass(frozen=True, slots=True)
class Sum:
    """Σ nₖ Δₖ, as of secure aggregation (Bonawitz et al. 2017, doi:10.1145/3133956.3133982).

    nₖ: the examples of an edge, 1 in a survey.
    """

    wants_norms: ClassVar[bool] = False

    def max_weight(self, max_examples: int) -> float:
        return float(max_examples)

    def weight(self, update: Contribution) -> float:
        return float(update.examples)

    def divisor(self, closed: ClosedRound) -> float:  # noqa: ARG002
        return 1.0


@dataclass(frozen=True, slots=True)
class Normalized:
    """FedNova: τ Σ pₖ Δₖ / ‖aₖ‖₁, pₖ = nₖ / Σ n, τ = Σ pₖ ‖aₖ‖₁ (Wang et al. 2020, arXiv:2007.07481, equation 7).

    ‖a‖₁ is what τ local steps weigh in the update: τ for plain SGD, (τ − ρ(1 − ρ^τ) / (1 − ρ)) / (1 − ρ) with momentum.
    ``momentum``: ρ, that of the edges' SGD.
    """

    wants_norms: ClassVar[bool] = False
    from_training: ClassVar[Mapping[str, str]] = {"momentum": "momentum"}
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def max_weight(self, max_examples: int) -> float:
        return float(max_examples)

    def weight(self, update: Contribution) -> float:
        return update.examples / self._norm_of(update)

    def divisor(self, closed: ClosedRound) -> float:
        steps = sum(update.examples * self._norm_of(update) for update in closed.contributions)
        return closed.examples / (steps / closed.examples)

    def _norm_of(self, update: Contribution) -> float:
        """Returns ‖a‖₁ of an update, at least 1."""
        rho, steps = self.momentum, max(1, update.steps)
        weighs = (steps - rho * (1 - _power(rho, steps)) / (1 - rho)) / (1 - rho)
        return max(1.0, weighs)  # rounding makes it less


@dataclass(frozen=True, slots=True)
class Fair:
    """q-FedAvg: Σ L Fₖ^q Δₖ / Σ hₖ, hₖ = q Fₖ^(q−1) ‖L Δₖ‖² + L Fₖ^q (Li et al. 2020, algorithm 2).

    "Fair Resource Allocation in Federated Learning", arXiv:1905.10497.

    Edges where the base has a large loss Fₖ count more. ``q``: 0 is the plain mean of edges. ``lr``: the learning rate
    of the edges, 1 / L. ``min_loss``: a smaller loss counts as this; with q below 1, Fₖ^(q−1) has no bound, so that one
    edge whose loss is near 0 would hold the model still. ``max_loss``: a larger loss counts as this.
    """

    wants_norms: ClassVar[bool] = True
    from_training: ClassVar[Mapping[str, str]] = {"lr": "lr"}
    lr: Annotated[float, Field(gt=0, le=1e6)]
    q: Annotated[float, Field(ge=0, le=10)] = 0.1
    min_loss: Annotated[float, Field(gt=0, le=1e6)] = 0.01
    max_loss: Annotated[float, Field(gt=0, le=1e6)] = 100.0

    def max_weight(self, max_examples: int) -> float:  # noqa: ARG002  examples play no role
        return _power(self.max_loss, self.q) / self.lr

    def weight(self, update: Contribution) -> float:
        return _power(self._loss(update), self.q) / self.lr

    def divisor(self, closed: ClosedRound) -> float:
        total = 0.0
        for update in closed.contributions:
            loss = self._loss(update)
            assert update.norm is not None
            squares = (update.norm / self.lr) ** 2
            total += self.q * _power(loss, self.q - 1) * squares + _power(loss, self.q) / self.lr
        return total

    def _loss(self, update: Contribution) -> float:
        """Returns Fₖ. An edge without a holdout, which has no loss, counts as one whose loss is 1."""
        loss = 1.0 if update.loss is None else update.loss
        return min(max(loss, self.min_loss), self.max_loss)


def _power(base: float, exponent: float) -> float:
    """Returns base^exponent, rounded so that every machine's power function gives the same; base is not negative."""
    fraction, binary = math.frexp(base**exponent)
    return math.ldexp(round(math.ldexp(fraction, _PLACES)), binary - _PLACES)
