"""Means and deviations of columns, of one edge or of the whole federation.

The statistics of a federation are buffers of the model, which FedAvg averages. An aggregator adds them in fixed point,
to about 2^-33, and takes none above ``--max-buffer`` (10^12). So a statistic has four places, of which one is used: the
one that brings it to between 2^-10 and 2^38, where fixed point is as precise as float32 (`to_places`). As the places
only scale, the mean of them is that of the statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SCALES: Final = 2.0 ** np.arange(-48, 97, 48)
"""Of the places. A square needs twice the exponent of a number: 2^134 is enough for times in nanoseconds."""
LEAST: Final = 2.0**-10
"""Times its scale: the least magnitude of a statistic in any place but the first."""
STATISTICS_SHAPE: Final = (3, len(SCALES))
"""Of the buffer of a column: the places of the fraction of examples that have a value, of the sum of the values, and of
the sum of the squared distances to the mean of the round before, both divided by the number of all examples."""
ROUNDS: Final = "rounds"
"""The buffer, of shape (1,), that counts the rounds in which statistics were shared."""
MAX_STATISTIC: Final = 2.0**38 * float(SCALES[-1])
LEAST_DEVIATION: Final = 1e-3
"""Of the mean: what float32 can tell apart after the first round."""
LIMIT: Final = 32.0
"""Standardised values are cut off there, so that one wrong number does not make the training diverge."""


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Of columns: their ``mean`` and ``deviation``, shape (columns,)."""

    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, values: Floats) -> Statistics:
        """Returns the statistics of ``values``, shape (examples, columns), without missing ones (NaN)."""
        present, total, _ = _moments(values, np.zeros(values.shape[1]))
        mean = _ratio(total, present)
        _, _, spread = _moments(values, mean)
        return cls(mean, _deviation(_ratio(spread, present), mean))

    def standardized(self, values: Floats) -> Floats:
        """Returns ``values``, (examples, the first of the columns), standardised; NaN stays."""
        count = values.shape[1]
        return np.clip((values - self.mean[:count]) / self.deviation[:count], -LIMIT, LIMIT)


def to_places(values: Floats) -> NDArray[np.float32]:
    """Returns numbers by places, shape (values, places): each is 0 but one, of magnitude below 2^38."""
    values = np.clip(values, -MAX_STATISTIC, MAX_STATISTIC)
    chosen = np.searchsorted(SCALES[1:] * LEAST, np.abs(values), side="right")
    places = np.zeros((len(values), len(SCALES)), np.float32)
    places[np.arange(len(values)), chosen] = values / SCALES[chosen]
    return places


def from_places(places: NDArray[np.float32]) -> Floats:
    """Returns the numbers whose places, or averages of places, are given."""
    return places.astype(np.float64) @ SCALES


class SharedStatistics:
    """The statistics of the columns ``names`` in a model's buffers, which are named ``names`` and ``rounds``."""

    def __init__(self, names: tuple[str, ...], buffers: Mapping[str, NDArray[np.float32]]) -> None:
        self._names = names
        self._rounds = float(buffers[ROUNDS][0])
        raw = [from_places(buffers[name]) for name in names]
        self._present, self._total, self._square = np.array(raw, np.float64).reshape(-1, 3).T

    @staticmethod
    def first(names: tuple[str, ...]) -> dict[str, NDArray[np.float32]]:
        """Returns the buffers before any statistics are shared."""
        return {ROUNDS: np.zeros(1, np.float32)} | {
            name: np.zeros(STATISTICS_SHAPE, np.float32) for name in names
        }

    @property
    def known(self) -> bool:
        """Whether statistics have been shared."""
        return self._rounds > 0

    @property
    def statistics(self) -> Statistics:
        """The statistics, once they are known."""
        mean = _ratio(self._total, self._present)
        variance = _ratio(self._square, self._present)
        if self._rounds < 2:  # after the first round the squares are those of the distances to 0
            variance = np.maximum(variance - mean**2, (LEAST_DEVIATION * mean) ** 2)
        return Statistics(mean, _deviation(variance, mean))

    def with_those_of(self, values: Floats) -> dict[str, NDArray[np.float32]]:
        """Returns the buffers that an edge with ``values`` (examples, columns) shares.

        They are the running means over the rounds, so that the statistics settle though each round has other edges.
        """
        mean = _ratio(self._total, self._present) if self.known else np.zeros(len(self._names))
        present, total, square = _moments(values, mean)
        before = self._square
        if self._rounds == 1:  # now about the mean, too
            before = np.maximum(before - mean**2 * self._present, 0)
        step = 1 / (self._rounds + 1)
        shared = (
            self._present + step * (present - self._present),
            self._total + step * (total - self._total),
            before + step * (square - before),
        )
        places = [to_places(statistic) for statistic in shared]
        buffers = {name: np.stack([one[i] for one in places]) for i, name in enumerate(self._names)}
        return {ROUNDS: np.array([self._rounds + 1], np.float32)} | buffers


def _moments(values: Floats, about: Floats) -> tuple[Floats, Floats, Floats]:
    there = ~np.isnan(values)
    distances = np.where(there, values - about, 0.0)
    return there.mean(axis=0), np.where(there, values, 0.0).mean(axis=0), np.square(distances).mean(axis=0)


def _ratio(total: Floats, present: Floats) -> Floats:
    return np.divide(total, present, out=np.zeros_like(total), where=present > 1e-9)


def _deviation(variance: Floats, mean: Floats) -> Floats:
    """Returns the deviations; 1 for a column that is constant as far as float32 can tell."""
    return np.sqrt(np.where(variance > (1e-6 * mean) ** 2, variance, 1.0))
