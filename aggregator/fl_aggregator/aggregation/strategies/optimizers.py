"""Server optimizers: x is the model, Δ the combined change; each coordinate by itself.

The adaptive ones: Reddi et al. 2021, "Adaptive Federated Optimization", arXiv:2003.00295, algorithm 2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fl_aggregator.aggregation.strategies.parts import Block, ClosedRound, Doubles

Rate = Annotated[float, Field(gt=0, le=1e6)]
Decay = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, slots=True)
class Sgd:
    """m ← βm + Δ; x ← x + ηm. With η = 1 and β = 0, it is FedAvg's.

    With momentum, FedAvgM: Hsu et al. 2019, arXiv:1909.06335. Momentum makes steps up to 1 / (1 − β) times as long, so
    with η = 1 − β they are in the long run as long as FedAvg's. ``lr``: η. ``momentum``: β.
    """

    wants_norms: ClassVar[bool] = False
    lr: Rate = 1.0
    momentum: Decay = 0.0

    def state(self) -> Mapping[str, float]:
        return {"momentum": 0.0} if self.momentum else {}

    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        change = block.change
        if self.momentum:
            change = block.state["momentum"]
            change *= self.momentum
            change += block.change
        block.weights[:] += change if self.lr == 1.0 else self.lr * change


@dataclass(frozen=True, slots=True)
class _Adaptive(ABC):
    """m ← β₁m + (1 − β₁)Δ; x ← x + ηm / (√v + τ), with v by the subclass; v begins as τ²."""

    wants_norms: ClassVar[bool] = False
    lr: Rate = 0.01
    beta1: Decay = 0.9
    tau: Rate = 1e-3

    def state(self) -> Mapping[str, float]:
        return {"first": 0.0, "second": self.tau**2}

    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        first, second = block.state["first"], block.state["second"]
        first *= self.beta1
        first += (1 - self.beta1) * block.change
        self._add_square(second, np.square(block.change))
        block.weights[:] += self.lr * first / (np.sqrt(second) + self.tau)

    @abstractmethod
    def _add_square(self, second: Doubles, square: Doubles) -> None:
        """Adds Δ² to v, in place."""


@dataclass(frozen=True, slots=True)
class Adam(_Adaptive):
    """m ← β₁m + (1 − β₁)Δ; v ← β₂v + (1 − β₂)Δ²; x ← x + ηm / (√v + τ), without a correction of the bias.

    Reddi et al. 2021, arXiv:2003.00295, algorithm 2.

    ``lr``: η. ``beta1``, ``beta2``: how much of m and v stays. ``tau``: τ, which bounds a step; v begins as τ².
    """

    beta2: Decay = 0.99

    def _add_square(self, second: Doubles, square: Doubles) -> None:
        second *= self.beta2
        second += (1 - self.beta2) * square


@dataclass(frozen=True, slots=True)
class Yogi(_Adaptive):
    """m ← β₁m + (1 − β₁)Δ; v ← v − (1 − β₂)Δ² sign(v − Δ²), so that v grows slowly; x ← x + ηm / (√v + τ).

    Reddi et al. 2021, arXiv:2003.00295, algorithm 2.

    ``lr``: η. ``beta1``, ``beta2``: how much of m and v stays. ``tau``: τ, which bounds a step; v begins as τ².
    """

    beta2: Decay = 0.99

    def _add_square(self, second: Doubles, square: Doubles) -> None:
        second -= (1 - self.beta2) * square * np.sign(second - square)


@dataclass(frozen=True, slots=True)
class Adagrad(_Adaptive):
    """m ← β₁m + (1 − β₁)Δ, with β₁ = 0 by default; v ← v + Δ²; x ← x + ηm / (√v + τ).

    Reddi et al. 2021, arXiv:2003.00295, algorithm 2.

    ``lr``: η. ``beta1``: how much of m stays. ``tau``: τ, which bounds a step; v begins as τ².
    """

    lr: Rate = 0.03
    beta1: Decay = 0.0

    def _add_square(self, second: Doubles, square: Doubles) -> None:
        second += square


@dataclass(frozen=True, slots=True)
class Extrapolation:
    """FedExP: x ← x + ηΔ, η = max(1, Σ ‖Δₖ‖² / (2n (‖Δ‖² + ε))) (Jhunjhunwala et al. 2023, equation 3).

    "FedExP: Speeding Up Federated Averaging via Extrapolation", arXiv:2301.09604. ``epsilon``: ε, which
    bounds η when the updates cancel out.
    """

    wants_norms: ClassVar[bool] = True
    epsilon: Annotated[float, Field(gt=0)] = 1e-3

    def state(self) -> Mapping[str, float]:
        return {}

    def step(self, block: Block, closed: ClosedRound) -> None:
        block.weights[:] += self._rate(closed) * block.change

    def report(self, closed: ClosedRound) -> Mapping[str, float]:
        return {"lr": self._rate(closed)}

    def _rate(self, closed: ClosedRound) -> float:
        """Returns η."""
        assert closed.mean_norm is not None
        squares = sum((update.norm or 0.0) ** 2 for update in closed.contributions)
        return max(1.0, squares / (2 * len(closed.contributions) * (closed.mean_norm**2 + self.epsilon)))


@dataclass(frozen=True, slots=True)
class Accumulate:
    """s ← s + Δ, and x stays: sums that the run directory has, and no model that others could read.

    For federated analytics (Bonawitz et al. 2021, "Federated Learning and Privacy", ACM Queue 19(5)).
    """

    wants_norms: ClassVar[bool] = False

    def state(self) -> Mapping[str, float]:
        return {"sums": 0.0}

    def step(self, block: Block, closed: ClosedRound) -> None:  # noqa: ARG002
        block.state["sums"][:] += block.change
