"""The sums beside that of the weights: how many examples, and what was measured on them (protocol, 10.5).

They are masked, too, so that the aggregator learns means and no edge's numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.manifest import ArraySpec, Manifest

TALLIES: Final = 8
TALLY_BITS: Final = 64
_SCALE: Final = 2.0**20
MAX_METRIC: Final = 1000.0
"""Losses are at most this, and the primary metric has at most this magnitude."""
MOST_EXAMPLES: Final = int(2**62 / (_SCALE * MAX_METRIC))
"""The examples of all edges of a round, with which no tally overflows."""
TALLIES_MANIFEST: Final = Manifest(arrays=(ArraySpec(name="tallies", shape=(TALLIES,)),))


class Implausible(ValueError):
    """Tallies that the updates of a round cannot have."""


@dataclass(frozen=True, slots=True)
class Tallies:
    """What one edge measured, or several on average: ``train_loss`` in training, the others on the holdout.

    ``before`` training, of the base, and ``after`` it: the loss and the primary metric. They are 0 where an edge does
    not have them.
    """

    examples: int
    holdout: int
    train_loss: float
    before_loss: float
    before_primary: float
    after_loss: float
    after_primary: float

    def integers(self) -> Int64s:
        """What an edge adds to the sums, shape (8,)."""
        losses, holdout = (self.train_loss, self.before_loss, self.after_loss), self.holdout
        train, before, after = (_bounded(loss, 0.0) for loss in losses)
        primary = [_bounded(one, -MAX_METRIC) for one in (self.before_primary, self.after_primary)]
        products = [
            self.examples * train,
            holdout * before,
            holdout * primary[0],
            holdout * after,
            holdout * primary[1],
        ]
        scaled = [round(product * _SCALE) for product in products]
        return np.array([self.examples, holdout, *scaled, 0], np.int64)

    @staticmethod
    def of_private(sums: Int64s, edges: int) -> Tallies:
        """Those of ``edges`` in a private round, each of which is `NO_NUMBERS`. Raises `Implausible`."""
        examples, *others = sums.tolist()
        _check("examples", examples, edges, edges)
        for other in others:
            _check("a tally that is not examples", other, 0, 0)
        return replace(NO_NUMBERS, examples=edges)

    @classmethod
    def of(cls, sums: Int64s, edges: int, max_examples: int) -> Self:
        """The means over all examples of ``edges``, from the sums. Raises `Implausible`, which names the tally."""
        examples, holdout, train, before, primary_before, after, primary_after, rest = sums.tolist()
        _check("examples", examples, edges, edges * max_examples)
        _check("holdout", holdout, 0, edges * max_examples)
        of_training, of_holdout = (int(count * MAX_METRIC * _SCALE) + edges for count in (examples, holdout))
        _check("train loss", train, 0, of_training)
        for name, loss, primary in (("before", before, primary_before), ("after", after, primary_after)):
            _check(f"loss {name}", loss, 0, of_holdout)
            _check(f"primary metric {name}", primary, -of_holdout, of_holdout)
        _check("the last tally", rest, 0, 0)
        return cls(
            examples,
            holdout,
            _mean(train, examples),
            _mean(before, holdout),
            _mean(primary_before, holdout),
            _mean(after, holdout),
            _mean(primary_after, holdout),
        )


NO_NUMBERS: Final = Tallies(1, 0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""What an edge says of itself where even sums would need noise: that it is there."""


def _bounded(metric: float, least: float) -> float:
    return min(max(metric, least), MAX_METRIC) if math.isfinite(metric) else MAX_METRIC


def _mean(total: int, count: int) -> float:
    return total / (count * _SCALE) if count else 0.0


def _check(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise Implausible(f"{name}: the sum is {value}, expected {least} to {most}")
