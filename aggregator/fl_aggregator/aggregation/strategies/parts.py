"""What a strategy is made of. No part logs, draws, reads, writes, or learns the name of an array.

A strategy is a *combination* (many updates become one change), a *server optimizer* (the change becomes the next
model), *transforms* (each scales single updates) and perhaps a *correction* (what edges add to their gradients). None
knows the others. Buffers are averaged and reach none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors.sections import DELTA

Doubles = NDArray[np.float64]
Columns = NDArray[np.float32]
"""Shape (coordinates, updates), contiguous: a row is what all updates say about one coordinate."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """All of an accepted update but its values. It is in the journal, so that a resumed run has the same.

    ``norm``: the L2 norm of its parameters after all transforms; null unless a part wants norms. ``loss``: of the base
    on the edge's holdout, before training; null without a holdout.
    """

    client: str
    examples: int
    steps: int
    loss: float | None = None
    norm: float | None = None


@dataclass(frozen=True)
class ClosedRound:
    """The updates that become version ``version``, in ascending order of their clients.

    ``mean_norm``: the L2 norm of the combined change; null unless the optimizer wants norms. ``heard``: the examples of
    all edges that have ever contributed, as they had them first, before this round and with it; only if there is a
    correction.
    """

    version: int
    contributions: tuple[Contribution, ...]
    mean_norm: float | None = None
    heard: tuple[int, int] = (0, 0)

    @cached_property
    def examples(self) -> int:
        """The examples of all updates."""
        return sum(update.examples for update in self.contributions)


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive parameters in float64, which a part changes in place; they are rounded to float32 afterwards.

    All vectors have the shape (coordinates,). A part must not depend on where the model is cut into blocks, nor on how
    many coordinates a block has; there is at least one. ``weights``: of the base. ``change``: what the combination made
    of the updates. ``state``: the vectors of the part, and those of other parts, by name. ``sections``: the sums of
    what updates contain besides, weighted by the examples that their edges had first, divided by the examples of the
    round.
    """

    weights: Doubles
    change: Doubles
    state: Mapping[str, Doubles] = field(default_factory=dict)
    sections: Mapping[str, Doubles] = field(default_factory=dict)


class Transform(Protocol):
    """Scales each update by a factor from 0 to 1, which follows from that update alone."""

    wants_norms: ClassVar[bool]

    def factor(self, update: Contribution) -> float:
        """Returns the factor."""
        ...


@runtime_checkable
class WeightedSum(Protocol):
    """A combination Σ weight(k) Δₖ / divisor. It is folded on arrival, exactly, and nothing is held.

    A class may have ``from_training``: its fields that are options of the run if they are not given, by name.
    """

    wants_norms: ClassVar[bool]

    def max_weight(self, max_examples: int) -> float:
        """Returns the largest weight that an update can have, finite; it fixes the binary places of the fold."""
        ...

    def weight(self, update: Contribution) -> float:
        """Returns the weight of an update, above 0."""
        ...

    def divisor(self, closed: ClosedRound) -> float:
        """Returns by what the sum is divided, above 0 and finite."""
        ...


@runtime_checkable
class GramCombination(Protocol):
    """A combination Σ wₖ Δₖ whose weights follow from the inner products of all updates.

    ``remembers``: the change of the version before is one more row, the last, and gets a weight, too.
    """

    remembers: ClassVar[bool]

    def min_updates(self) -> int:
        """Returns the smallest number of updates for which it is defined."""
        ...

    def weights(self, gram: Doubles, closed: ClosedRound) -> Doubles:
        """Returns a weight for each row of ``gram``, an array of shape (rows,), finite.

        ``gram``: inner products, shape (rows, rows), which may be changed in place. The rows are the updates of
        ``closed`` in its order, and after them the last change of a combination that remembers it.
        """
        ...


@runtime_checkable
class CoordinateCombination(Protocol):
    """A combination of each coordinate by itself, whatever the others are, and however many are in a block."""

    def min_updates(self) -> int:
        """Returns the smallest number of updates for which it is defined."""
        ...

    def combine(self, columns: Columns) -> Doubles:
        """Returns the combined coordinates, an array of shape (coordinates,), finite.

        ``columns``: shape (coordinates, updates), the updates in ascending order of their clients, which may be sorted
        in place.
        """
        ...


@runtime_checkable
class SelectiveCombination(CoordinateCombination, Protocol):
    """One of some of the updates, which it chooses by the inner products of all."""

    def choose(self, gram: Doubles) -> NDArray[np.intp]:
        """Returns the indices of the updates to combine, an array of shape (chosen,), ascending, at least one.

        ``gram``: inner products, shape (updates, updates), which may be changed in place.
        """
        ...


class Correction(Protocol):
    """The aggregator's half of what edges add to their gradients; their half has the same ``name``.

    Its fields, which are numbers, at most 16, go to the edges. ``sections``: what each update contains besides the
    change, at most 4, and as many vectors of its state, by the same names, which go to the edges with each version.
    Each coordinate stands by itself, as in an `Optimizer`.
    """

    name: ClassVar[str]
    sections: ClassVar[tuple[str, ...]]

    def state(self) -> Mapping[str, float]:
        """Returns the names of its vectors, each of shape (parameters,), with the value they begin with."""
        ...

    def absorb(self, block: Block, closed: ClosedRound) -> None:
        """Changes its vectors in ``block.state``, and nothing else, by what the updates contain in ``block.sections``.

        ``closed`` has no norms that it may use.
        """
        ...


class Optimizer(Protocol):
    """Applies the combined change to the model, each coordinate by itself.

    A step that needs the length of the whole change takes `ClosedRound.mean_norm`: that of a block is another.
    """

    wants_norms: ClassVar[bool]

    def state(self) -> Mapping[str, float]:
        """Returns the names of its vectors, each of shape (parameters,), with the value they begin with."""
        ...

    def step(self, block: Block, closed: ClosedRound) -> None:
        """Changes ``block.weights``, and its vectors in ``block.state``, and nothing else."""
        ...


@runtime_checkable
class ReportingOptimizer(Optimizer, Protocol):
    """One that says something of a step: it is in the history and in the report of the run."""

    def report(self, closed: ClosedRound) -> Mapping[str, float]:
        """Returns numbers by name, which follow from the round alone."""
        ...


Combination = WeightedSum | GramCombination | CoordinateCombination
LAST_CHANGE = "change"
"""The state vector of a combination that remembers."""


@dataclass(frozen=True)
class Strategy:
    """The parts of a strategy."""

    combine: Combination
    optimize: Optimizer
    transforms: tuple[Transform, ...] = ()
    correct: Correction | None = None

    @cached_property
    def sections(self) -> tuple[str, ...]:
        """What each update contains, in ascending order."""
        return tuple(sorted((DELTA, *(() if self.correct is None else self.correct.sections))))

    @cached_property
    def wants_norms(self) -> bool:
        """Whether a part wants the norms of updates."""
        parts: tuple[Any, ...] = (self.combine, self.optimize, *self.transforms)
        return any(getattr(part, "wants_norms", False) for part in parts)

    @cached_property
    def needs_all_updates(self) -> bool:
        """Whether the updates must be kept until the round closes, as no sum of them will do."""
        return not isinstance(self.combine, WeightedSum)

    @property
    def min_updates(self) -> int:
        """The smallest number of updates in a round."""
        return 1 if isinstance(self.combine, WeightedSum) else self.combine.min_updates()

    @cached_property
    def remembers(self) -> bool:
        """Whether the combination has the change of the version before, which is a vector of the state then."""
        return bool(getattr(self.combine, "remembers", False))

    @cached_property
    def _states(self) -> tuple[Mapping[str, float], ...]:
        correct = {} if self.correct is None else self.correct.state()
        return {LAST_CHANGE: 0.0} if self.remembers else {}, self.optimize.state(), correct

    @property
    def state_clash(self) -> str | None:
        """The name of a vector that two parts keep, each for itself; null if there is none."""
        names = [name for state in self._states for name in state]
        return next((name for name in names if names.count(name) > 1), None)

    @cached_property
    def state(self) -> Mapping[str, float]:
        """The names of all vectors that are kept from version to version, with the value they begin with."""
        return {name: value for state in self._states for name, value in state.items()}

    def transformed(self, update: Contribution) -> tuple[float, Contribution]:
        """Returns by what an update is multiplied, and its contribution with the norm that it has then."""
        product = 1.0
        for transform in self.transforms:
            factor = transform.factor(update)
            product *= factor
            update = replace(update, norm=None if update.norm is None else update.norm * factor)
        return product, update


def values_of(part: Any) -> dict[str, Any]:
    """Returns the values of a part's fields by name."""
    return {one.name: getattr(part, one.name) for one in fields(part)}
