"""What combinations make of updates that they need one by one: of their inner products, or of their columns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fl_aggregator.aggregation import part_calls
from fl_aggregator.aggregation.exact_sum import ExactSum
from fl_aggregator.aggregation.inner_products import gram
from fl_aggregator.aggregation.strategies.parts import (
    ClosedRound,
    CoordinateCombination,
    Doubles,
    GramCombination,
    SelectiveCombination,
)
from fl_shared.tensors.encodings.section import Values
from fl_shared.tensors.fixed_point import scale_bits_of
from fl_shared.tensors.manifest import Vector, magnitude
from fl_shared.tensors.spans import Span, block_of, blocks

Change = Callable[[int, int], Doubles]
"""Returns the combined change of the values from the first index to before the second."""


@dataclass(frozen=True, slots=True, eq=False)
class RebasedUpdate:
    """An update as the change of ``base``, the newest version, to which it is added; it began from ``own``."""

    values: Values
    own: Vector
    base: Vector

    def __getitem__(self, part: slice) -> Vector:
        moved: Vector = (self.values[part] + difference(self.own, self.base, part)).astype(np.float32)
        return moved


Row = Values | RebasedUpdate


@dataclass(frozen=True, slots=True)
class Combined:
    """The changes of parameters and of buffers.

    ``last``: how much the last change counts. ``chosen``: the places of the updates that are in it, ascending, if the
    combination chooses among them; else null.
    """

    parameters: Change
    buffers: Change
    last: float = 0.0
    chosen: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class SeparateUpdates:
    """The updates of a round, which count times their ``factors``; of buffers the ``rebased`` ones, as they are.

    ``parameters``: where those are. ``last_change``: of a combination that remembers it.
    """

    rows: Sequence[Values]
    rebased: Sequence[Row]
    factors: Doubles
    parameters: Sequence[Span]
    last_change: Vector | None

    def combined(self, combine: GramCombination | CoordinateCombination, closed: ClosedRound) -> Combined:
        """Combines them."""
        if isinstance(combine, GramCombination):
            return self._by_inner_products(combine, closed)
        rows, rebased, factors, chosen = self.rows, self.rebased, self.factors, None
        if isinstance(combine, SelectiveCombination):
            chosen = part_calls.chosen_by(combine, gram(rows, self.parameters) * np.outer(factors, factors))
            rows, rebased = [rows[index] for index in chosen], [rebased[index] for index in chosen]
            factors = factors[chosen]
        of_buffers = _by_column(combine, rebased, np.ones(len(rows)))
        return Combined(_by_column(combine, rows, factors), of_buffers, 0.0, chosen)

    def _by_inner_products(self, combine: GramCombination, closed: ClosedRound) -> Combined:
        last = [] if self.last_change is None else [self.last_change]
        scales = np.append(self.factors, np.ones(len(last)))
        products = gram([*self.rows, *last], self.parameters) * np.outer(scales, scales)
        found = part_calls.weights_of(combine, products, closed)
        weights = found[: len(self.rows)]
        of_buffers = weights if weights.sum() > 0 else np.ones(len(self.rows))
        return Combined(
            _weighted(self.rows, weights * self.factors, 1.0),
            _weighted(self.rebased, of_buffers, math.fsum(of_buffers)),
            float(found[-1]) if last else 0.0,
            None if weights.all() else np.flatnonzero(weights).tolist(),
        )


def _weighted(rows: Sequence[Row], weights: Doubles, divisor: float) -> Change:
    largest = max(1.0, float(np.abs(weights).max()))

    def change(start: int, stop: int) -> Doubles:
        most = max(magnitude(row[start:stop]) for row in rows) or 1.0
        total = ExactSum(stop - start, scale_bits_of(largest, most, len(rows)), len(rows))
        for row, weight in zip(rows, weights, strict=True):
            total.add(row[start:stop], float(weight))
        return total.over(divisor)

    return change


def _by_column(combine: CoordinateCombination, rows: Sequence[Row], factors: Doubles) -> Change:
    def piece(start: int, stop: int) -> Doubles:
        columns = np.empty((stop - start, len(rows)), np.float32)
        for index, (row, factor) in enumerate(zip(rows, factors, strict=True)):
            columns[:, index] = row[start:stop] if factor == 1.0 else row[start:stop] * float(factor)
        return part_calls.combined(combine, columns)

    def change(start: int, stop: int) -> Doubles:
        pieces = blocks([(start, stop)], block_of(len(rows)))
        return np.concatenate([piece(*one) for one in pieces])

    return change


def difference(one: Vector, other: Vector, part: slice) -> Doubles:
    """Returns a part of one - other, in double precision."""
    found: Doubles = one[part].astype(np.float64) - other[part]
    return found
