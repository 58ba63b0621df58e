"""Transforms and combinations with checks."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.aggregation.strategies.checked_parts.part import CheckedPart, brief
from fl_aggregator.aggregation.strategies.parts import ClosedRound, Columns, Contribution, Doubles


class CheckedTransform(CheckedPart):
    """A transform."""

    members = ("wants_norms", "factor")

    def factor(self, update: Contribution) -> float:
        """Returns the factor."""
        expected = "0 to 1"
        factor = self.check_number("factor", self.call("factor", expected, update), expected, update)
        self.check(0 <= factor <= 1, f"factor() is {factor} for {update}", expected)
        return factor


class CheckedSum(CheckedPart):
    """A weighted sum."""

    members = ("wants_norms", "max_weight", "weight", "divisor")

    @cached_property
    def _most(self) -> float:
        return self.max_weight(self.max_examples)

    def max_weight(self, max_examples: int) -> float:
        """Returns the largest weight of an update."""
        expected = "above 0 and finite"
        most = self.check_number("max_weight", self.call("max_weight", expected, max_examples), expected)
        self.check(0 < most < math.inf, f"max_weight() is {most}", expected)
        return most

    def weight(self, update: Contribution) -> float:
        """Returns the weight of an update."""
        expected = f"above 0 and at most {self._most} (max_weight)"
        weight = self.check_number("weight", self.call("weight", expected, update), expected, update)
        self.check(0 < weight <= self._most, f"weight() is {weight} for {update}", expected)
        return weight

    def divisor(self, closed: ClosedRound) -> float:
        """Returns by what the sum is divided."""
        expected = "above 0 and finite"
        divisor = self.check_number("divisor", self.call("divisor", expected, closed), expected)
        self.check(0 < divisor < math.inf, f"divisor() is {divisor}", expected)
        return divisor


class _CheckedUpdates(CheckedPart):
    """A combination that needs the updates one by one."""

    def min_updates(self) -> int:
        """Returns the smallest number of updates."""
        expected = "at least 1"
        least = self.run("min_updates", expected)
        is_number = isinstance(least, int) and not isinstance(least, bool)
        self.check(is_number and least >= 1, f"min_updates() is {least!r}", expected)
        return int(least)


class CheckedGram(_CheckedUpdates):
    """A combination by inner products."""

    members = ("remembers", "min_updates", "weights")

    @cached_property
    def remembers(self) -> bool:
        """Whether the last change is a row, too."""
        return self.flag("remembers")

    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:
        """Returns a weight for each row."""
        expected = f"an array of float64, shape ({len(gram)},)"
        weights: Doubles = self.call("weights", expected, gram, closed)
        self.check_vector("what weights() returns", weights, len(gram))
        return weights


class CheckedCoordinates(_CheckedUpdates):
    """A combination by coordinate."""

    members = ("min_updates", "combine")

    def combine(self, columns: Columns) -> Doubles:
        """Returns the combined coordinates."""

        def run(where: slice) -> dict[str, Doubles]:
            some = columns[where].copy()
            found = self.run("combine", f"an array of float64, shape ({len(some)},)", some)
            self.check_vector("what combine() returns", found, len(some))
            return {"": found}

        whole = run(slice(0, len(columns)))
        slack = 1e-5 * np.abs(columns).max(axis=1).astype(np.float64)
        self.check_by_coordinate("combine", whole, {"": slack}, run)
        return whole[""]


class CheckedSelection(CheckedCoordinates):
    """A combination by coordinate of some of the updates."""

    def choose(self, gram: Doubles) -> NDArray[np.intp]:
        """Returns the indices of the updates to combine."""
        expected = f"an array of indices from 0 to {len(gram) - 1}, ascending, each once"
        chosen: NDArray[np.intp] = self.run("choose", expected, gram.copy())
        is_array = isinstance(chosen, np.ndarray) and chosen.ndim == 1 and chosen.dtype.kind in "iu"
        self.check(is_array and len(chosen), f"choose() returns {brief(chosen)}", expected)
        inside = chosen[0] >= 0 and chosen[-1] < len(gram) and (np.diff(chosen.astype(np.int64)) > 0).all()
        self.check(inside, f"choose() returns {brief(chosen)}", expected)
        return chosen
