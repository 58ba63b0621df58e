"""Correlated noise: each release takes back parts of the noise of those before it.

Release t gets Σ_{i < bands} d_i z_{t−i} of independent z, with d the first coefficients of (1 − x)^γ: a banded inverse
factorisation (γ = ½: Kalinin and others 2025, arXiv:2505.12128; any γ: arXiv:2605.18379). As D = C⁻¹ and both are
Toeplitz and lower triangular, the releases are D (C X + Z): one Gaussian mechanism with the noise's deviation on C X,
also where later updates follow from earlier releases (Denisov and others 2022, arXiv:2202.08312, theorem 2.1).

An edge in the releases π changes C X by at most ‖Σ_{t∈π} C[:, t]‖ clips, since no coefficient c of C is negative
(Choquette-Choo and others 2023, arXiv:2211.06530, corollary 2.1). c is positive and decreasing for 0 < γ < 1 and any
number of bands: −d_i > 0 for i ≥ 1, c_t = Σ_i −d_i c_{t−i}, c begins as the coefficients of (1 − x)^−γ, and from
there differences c_t − c_{t−1} = Σ_i −d_i (c_{t−i} − c_{t−1−i}) stay negative. So of all patterns with ``times``
releases at least ``apart`` from each other, 0, apart, 2 apart … is the worst (Kalinin and Lampert 2024,
arXiv:2405.13763, theorem 2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, chain, repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

_GAMMAS: Final = tuple(step / 20 for step in range(20))
"""0 is independent noise."""


def coefficients(gamma: float, bands: int) -> tuple[float, ...]:
    """The first ``bands`` coefficients d of (1 − x)^``gamma``, 0 ≤ gamma < 1; (1,) for independent noise."""
    if not (0 <= gamma < 1 and bands >= 1):
        raise ValueError(f"gamma {gamma} with {bands} bands, expected 0 to 1, and at least 1 band")
    found = [1.0]
    for i in range(1, bands if gamma else 1):
        found.append(found[-1] * (i - 1 - gamma) / i)
    return tuple(found)


def strategy_column(d: Sequence[float], releases: int) -> NDArray[np.float64]:
    """The first column c of C = D⁻¹, shape (releases,); ``d`` begins with 1."""
    column = [1.0]
    for t in range(1, releases):
        column.append(-math.fsum(one * column[t - i] for i, one in enumerate(d[1 : t + 1], 1)))
    return np.array(column[:releases])


def sensitivity_of(column: NDArray[np.float64], pattern: Sequence[int], released: int) -> float:
    """‖Σ_{t∈π} C[:released, t]‖: what an edge in these releases, from 0, changes in the first ``released``, in clips.

    ``column`` has at least ``released`` values. Later releases are left out. It grows with ``released``, also for an
    edge that is in none of them, since they take back noise that hides it. See `sensitivities` for many edges.
    """
    total = np.zeros(released)
    for t in pattern:
        if t < released:
            total[t:] += column[: released - t]
    return _length(total)


def worst_sensitivity(column: NDArray[np.float64], apart: int, times: int | None, releases: int) -> float:
    """The largest `sensitivity_of` at most ``times`` releases, at least ``apart``; None: any number of them."""
    last = releases if times is None else min(releases, apart * times)
    return sensitivity_of(column, range(0, last, apart), releases)


def sensitivities(
    d: Sequence[float], patterns: Sequence[Sequence[int]], released: int
) -> NDArray[np.float64]:
    """`sensitivity_of` each of ``patterns``, shape (patterns,).

    v = C π is the solution of Σ_i d_i v_{t−i} = π_t. So it needs the last values of v, and neither C nor all of v.
    """
    lengths = [len(pattern) for pattern in patterns]
    when = np.fromiter(chain.from_iterable(patterns), np.int64, sum(lengths))
    order = np.argsort(when, kind="stable")
    edges = np.repeat(np.arange(len(patterns)), lengths)[order]
    ends = np.searchsorted(when[order], np.arange(released + 1))
    squares = np.zeros(len(patterns))
    last = [np.zeros(len(patterns)) for _ in d]
    for t in range(released):
        value = last.pop()
        value.fill(0.0)
        value[edges[ends[t] : ends[t + 1]]] = 1.0
        for one, before in zip(d[1:], last, strict=True):
            value -= one * before
        last.insert(0, value)
        squares += value * value
    return np.sqrt(squares)


def prefix_error(d: Sequence[float], releases: int) -> float:
    """The root mean square over t of the standard deviation of the noise in the first t releases together.

    Of independent z of variance 1: that is how far the noise has moved the model.
    """
    # A D, with A that sums, is Toeplitz, too.
    column = accumulate(chain(d, repeat(0.0)))
    variances = list(accumulate(one * one for one, _ in zip(column, range(releases), strict=False)))
    return math.sqrt(math.fsum(variances) / releases)


def best_gamma(releases: int, apart: int, times: int | None, bands: int) -> float:
    """The γ from 0, 0.05 … 0.95 with the least `prefix_error` at the same ε; the smaller one if two are equal."""

    def error(gamma: float) -> float:
        d = coefficients(gamma, bands)
        return prefix_error(d, releases) * worst_sensitivity(
            strategy_column(d, releases), apart, times, releases
        )

    return min(_GAMMAS if bands > 1 else _GAMMAS[:1], key=error)


def _length(vector: NDArray[np.float64]) -> float:
    return math.sqrt(math.fsum((vector * vector).tolist()))
