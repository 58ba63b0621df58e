"""Noise that is correlated over releases, so that part of it cancels in what the model sums up.

Release t gets Σ dᵢ z_{t−i}, i < bands, of independent z; d are the first coefficients of (1 − x)^γ (Kalinin et al.
2025, arXiv:2505.12128). C = D⁻¹ says how much an update counts in its own release and in later ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
_STEPS: Final = 20
"""Values of γ that are tried."""


def coefficients(gamma: float, bands: int) -> tuple[float, ...]:
    """Returns d, of ``bands`` coefficients."""
    found = [1.0]
    for index in range(1, bands):
        found.append(found[-1] * (index - 1 - gamma) / index)
    return tuple(found)


def strategy_column(d: Sequence[float], releases: int) -> Column:
    """Returns the first column of C = D⁻¹, shape (releases,)."""
    column = np.zeros(releases)
    column[0] = 1.0 / d[0]
    for row in range(1, releases):
        column[row] = -sum(d[i] * column[row - i] for i in range(1, min(len(d) - 1, row) + 1)) / d[0]
    return column


def sensitivity_of(column: Column, pattern: Sequence[int], released: int) -> float:
    """Returns ‖Σ C[:released, t], t in ``pattern``‖; releases are counted from 0."""
    total = np.zeros(released)
    for first in pattern:
        total[first:] += column[: released - first]
    return float(np.linalg.norm(total))


def worst_sensitivity(column: Column, apart: int, times: int, releases: int) -> float:
    """Returns the largest sensitivity of ``times`` contributions that are at least ``apart`` releases apart."""
    pattern = [index * apart for index in range(times) if index * apart < releases]
    return sensitivity_of(column, pattern, releases)


def prefix_error(d: Sequence[float], releases: int) -> float:
    """Returns the root mean square over t of the deviation of the sum of the noise of the releases up to t."""
    sums = np.cumsum(np.concatenate([d, np.zeros(max(0, releases - len(d)))]))[:releases]
    return math.sqrt(float(np.mean(np.cumsum(sums * sums))))


def best_gamma(releases: int, apart: int, times: int, bands: int) -> float:
    """Returns the γ whose noise is least in the prefix sums at the same ε, of `_STEPS` values below 1."""

    def loss(gamma: float) -> float:
        d = coefficients(gamma, bands)
        column = strategy_column(d, releases)
        return prefix_error(d, releases) * worst_sensitivity(column, apart, times, releases)

    return min((step / _STEPS for step in range(_STEPS)), key=loss)
