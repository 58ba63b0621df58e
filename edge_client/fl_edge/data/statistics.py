"""Means and deviations of columns, of one edge or of the whole federation.

The statistics of a federation are buffers of the model, which FedAvg averages. An aggregator takes only values up to
``--max-delta``, and adds them in fixed point. So a statistic of any size is given as digits (`to_digits`): as the mean
of digits is the digits of the mean, the average is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BASE: Final = 16.0
EXPONENTS: Final = np.arange(-16, 25)
"""Of the digits of a number: from 2^-64 to 2^96, since a square needs twice the exponent of a number."""
STATISTICS_SHAPE: Final = (3, len(EXPONENTS))
"""Of the buffer of a column: the digits of the fraction of examples that have a value, of the sum of the values, and of
the sum of the squared distances to the mean of the round before, both divided by the number of all examples."""
ROUNDS: Final = "rounds"
"""The buffer, of shape (1,), that counts the rounds in which statistics were shared."""
MAX_STATISTIC: Final = BASE ** float(EXPONENTS[-1])
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


def to_digits(values: Floats) -> NDArray[np.float32]:
    """Returns the digits, of magnitude at most 8, of numbers: shape (values, digits). The last one has a fraction."""
    rest = np.clip(values, -MAX_STATISTIC, MAX_STATISTIC)
    digits = np.empty((len(values), len(EXPONENTS)), np.float32)
    for place in range(len(EXPONENTS) - 1, -1, -1):
        scale = BASE ** float(EXPONENTS[place])
        digits[:, place] = np.rint(rest / scale) if place else rest / scale
        rest = rest - digits[:, place].astype(np.float64) * scale
    return digits


def from_digits(digits: NDArray[np.float32]) -> Floats:
    """Returns the numbers whose digits, or averages of digits, are given."""
    return digits.astype(np.float64) @ (BASE ** EXPONENTS.astype(np.float64))


class SharedStatistics:
    """The statistics of the columns ``names`` in a model's buffers, which are named ``names`` and ``rounds``."""

    def __init__(self, names: tuple[str, ...], buffers: Mapping[str, NDArray[np.float32]]) -> None:
        self._names = names
        self._rounds = float(buffers[ROUNDS][0])
        raw = [from_digits(buffers[name]) for name in names]
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
        digits = [to_digits(statistic) for statistic in shared]
        buffers = {name: np.stack([one[i] for one in digits]) for i, name in enumerate(self._names)}
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
