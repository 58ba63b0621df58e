"""The models that a run must make of its updates, computed in another way than the aggregator does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.configuration.staleness import parse_staleness
from fl_aggregator.round import effects as do
from fl_aggregator.round.events import UpdateMetadata
from fl_shared.tensors.manifest import Vector

Doubles = NDArray[np.float64]
STRATEGIES: Final = ("fedavg", "fedadam", "median")
LR, BETA1, BETA2, TAU = 0.01, 0.9, 0.99, 1e-3
"""Adam's parameters, as they are by default."""


class ExpectedModels:
    """The models so far. ``delta``: the values of an accepted update, shape (values,)."""

    def __init__(self, settings: Settings, delta: Callable[[UpdateMetadata], Vector]) -> None:
        self.models: list[Vector] = []
        self._settings = settings
        self._delta = delta
        self._staleness = parse_staleness(settings.staleness or "constant")
        self._first: Any = 0.0
        self._second: Any = np.float32(TAU**2)

    def add(self, average: do.Average) -> None:
        """Computes the version that ``average`` asks for."""
        base, contributors = average.base, average.contributors
        assert average.version == len(self.models), "versions grow by one"
        assert (base is None) == (not self.models)
        assert base is None or base.version == len(self.models) - 1
        deltas = [self._delta(update) for update in contributors]
        if base is None:
            self.models.append(deltas[0])
            return
        factors = [self._staleness(update.staleness) for update in contributors]
        combine = _median if self._settings.strategy == "median" else self._mean
        change = combine(contributors, deltas, factors)
        if self._settings.strategy == "fedadam":
            change = self._adam(change)
        self.models.append((self.models[-1].astype(np.float64) + change).astype("<f4"))

    def _mean(
        self, updates: Sequence[UpdateMetadata], deltas: Sequence[Vector], factors: Sequence[float]
    ) -> Doubles:
        """Protocol, 5.10 and 5.20."""
        scale = 2.0**self._settings.scale_bits
        total = sum(
            np.rint(delta.astype(np.float64) * (update.examples * factor) * scale).astype(np.int64)
            for update, delta, factor in zip(updates, deltas, factors, strict=True)
        )
        return np.asarray(total).astype(np.float64) / (sum(update.examples for update in updates) * scale)

    def _adam(self, change: Doubles) -> Doubles:
        """Reddi et al. 2021, algorithm 2. Between two versions the moments are in float32."""
        first = BETA1 * np.float64(self._first) + (1 - BETA1) * change
        second = BETA2 * np.float64(self._second) + (1 - BETA2) * change**2
        self._first, self._second = first.astype("<f4"), second.astype("<f4")
        step: Doubles = LR * first / (np.sqrt(second) + TAU)
        return step


def _median(
    _updates: Sequence[UpdateMetadata], deltas: Sequence[Vector], factors: Sequence[float]
) -> Doubles:
    rows = [delta * np.float32(factor) for delta, factor in zip(deltas, factors, strict=True)]
    change: Doubles = np.median(np.array(rows, np.float64), axis=0)
    return change
