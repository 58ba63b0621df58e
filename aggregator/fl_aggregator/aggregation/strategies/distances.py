"""Combinations that compare updates with each other. All that they need is the matrix of inner products.

``gram`` has the shape (n, n). ``bad`` is f, the number of edges that may send anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fl_aggregator.aggregation.strategies.coordinates import mean_of, median_of
from fl_aggregator.aggregation.strategies.parts import ClosedRound, Columns, Doubles

Bad = Annotated[int, Field(ge=0, le=10_000)]


def squared_distances(gram: Doubles) -> Doubles:
    """Returns ‖Δᵢ − Δⱼ‖² of all pairs, shape (n, n)."""
    squares = np.diag(gram)
    distances: Doubles = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0.0)
    return distances


def krum_scores(gram: Doubles, bad: int) -> Doubles:
    """Returns for each update the sum of its squared distances to the n − f − 2 nearest others, shape (n,)."""
    distances = squared_distances(gram)
    np.fill_diagonal(distances, np.inf)
    nearest = max(1, len(gram) - bad - 2)
    scores: Doubles = np.sort(distances, axis=1)[:, :nearest].sum(axis=1)
    return scores


@dataclass(frozen=True, slots=True)
class Krum:
    """The mean of the updates with the smallest s(i) = Σ ‖Δᵢ − Δⱼ‖², over the n − f − 2 updates j nearest to i.

    Blanchard et al. 2017, section 4, arXiv:1703.02757, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
    Descent". It needs n ≥ 2f + 3 updates. ``bad``: f, how many edges of a round may send anything. ``keep``: how many
    are kept; 1 is Krum. Without it, n − f are: Multi-Krum.
    """

    remembers: ClassVar[bool] = False
    bad: Bad
    keep: Annotated[int, Field(ge=1)] | None = None

    def min_updates(self) -> int:
        return 2 * self.bad + 3

    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:  # noqa: ARG002
        count = len(gram)
        keep = count - self.bad if self.keep is None else min(self.keep, count)
        best = np.argsort(krum_scores(gram, self.bad), kind="stable")[: max(1, keep)]
        weights = np.zeros(count)
        weights[best] = 1.0 / len(best)
        return weights


@dataclass(frozen=True, slots=True)
class GeometricMedian:
    """The point with the smallest sum of distances to all updates (RFA: Pillutla et al. 2022, arXiv:1912.13445).

    Algorithm 2, the smoothed Weiszfeld iteration. The point is always a weighted mean of updates, so that its distances
    follow from the inner products. ``iterations``: of the algorithm. ``smoothing``: ν, the least distance that counts.
    ``equal``: whether each edge counts the same, or by its examples.
    """

    remembers: ClassVar[bool] = False
    iterations: Annotated[int, Field(ge=1, le=1000)] = 10
    smoothing: Annotated[float, Field(gt=0)] = 1e-6
    equal: bool = True

    def min_updates(self) -> int:
        return 3

    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:
        alpha = np.array([1.0 if self.equal else update.examples for update in closed.contributions])
        alpha /= alpha.sum()
        weights = alpha
        for _ in range(self.iterations):
            weights = alpha / np.maximum(_distances_to(weights, gram), self.smoothing)
            weights = weights / weights.sum()
        return weights


@dataclass(frozen=True, slots=True)
class CenteredClip:
    """v ← v + Σ (Δₖ − v) min(1, τ / ‖Δₖ − v‖) / n, some times (Karimireddy et al. 2021, algorithm 2).

    "Learning from History for Byzantine Robust Optimization", arXiv:2012.10333. v begins as the change of the version
    before, 0 at first. ``radius``: τ, how far an update may pull. ``iterations``: how often.
    """

    remembers: ClassVar[bool] = True
    radius: Annotated[float, Field(gt=0)] = 1.0
    iterations: Annotated[int, Field(ge=1, le=1000)] = 3

    def min_updates(self) -> int:
        return 3

    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:
        count = len(closed.contributions)
        weights = np.zeros(count + 1)
        weights[count] = 1.0
        for _ in range(self.iterations):
            distances = _distances_to(weights, gram)[:count]
            pull = np.minimum(1.0, self.radius / np.maximum(distances, np.finfo(float).tiny)) / count
            weights = weights * (1.0 - pull.sum())
            weights[:count] += pull
        return weights


@dataclass(frozen=True, slots=True)
class Bulyan:
    """n − 2f updates that Krum chooses one by one; of each coordinate, the mean of those nearest to the median.

    El Mhamdi et al. 2018, arXiv:1802.07927. With θ = n − 2f, the θ − 2f values nearest to the median are averaged. It
    needs n ≥ 4f + 3 updates. ``bad``: f, how many edges may send anything.
    """

    bad: Bad

    def min_updates(self) -> int:
        return 4 * self.bad + 3

    def choose(self, gram: Doubles) -> NDArray[np.intp]:
        left = list(range(len(gram)))
        chosen: list[int] = []
        while len(chosen) < max(1, len(gram) - 2 * self.bad):
            scores = krum_scores(gram[np.ix_(left, left)], self.bad)
            chosen.append(left.pop(int(np.argmin(scores))))
        return np.array(sorted(chosen), np.intp)

    def combine(self, columns: Columns) -> Doubles:
        columns.sort(axis=1)
        count = columns.shape[1]
        keep = max(1, count - 2 * self.bad)
        middle = median_of(columns)[:, None]
        # The nearest to the median are neighbours in ascending order: of all windows, the one that reaches least far.
        lowest, highest = columns[:, : count - keep + 1], columns[:, keep - 1 :]
        start = np.argmin(np.maximum(middle - lowest, highest - middle), axis=1)
        return mean_of(np.take_along_axis(columns, start[:, None] + np.arange(keep), axis=1))


def _distances_to(weights: Doubles, gram: Doubles) -> Doubles:
    """Returns ‖Δₖ − v‖ of all rows, v = Σ weights Δ."""
    # Added row by row, since the order in which a library adds a product is not fixed.
    cross = np.add.reduce(gram * weights[:, None], axis=0)
    square = math.fsum(weights * cross)
    distances: Doubles = np.sqrt(np.maximum(np.diag(gram) - 2 * cross + square, 0.0))
    return distances
