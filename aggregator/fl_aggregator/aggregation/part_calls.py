"""Calls the parts of a strategy, whose code may be somebody's: one that breaks a rule fails the run with one line.

Each function raises ``RunFailed``, which names the part, what came, and what was expected.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.aggregation.strategies.parts import (
    Block,
    ClosedRound,
    Columns,
    Contribution,
    CoordinateCombination,
    Doubles,
    GramCombination,
    ReportingOptimizer,
    SelectiveCombination,
    Strategy,
    WeightedSum,
)
from fl_shared.errors import ProgramError, RunFailed
from fl_shared.tensors.manifest import Vector

_Array = TypeVar("_Array", bound=NDArray[Any])


@contextmanager
def _calling(part: Any, method: str) -> Iterator[None]:
    """Names the part, and the line in its code, instead of whatever the call raises."""
    try:
        yield
    except (ProgramError, OSError, MemoryError):
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(f"{type(error).__name__}: {error}".split())
        where = f"{Path(frame.filename).name}:{frame.lineno}"
        raise RunFailed(f"{type(part).__name__}.{method}() has failed at {where}: {said}") from error


def transformed(strategy: Strategy, update: Contribution) -> tuple[float, Contribution]:
    """See `Strategy.transformed`; the factor is from 0 to 1."""
    with _calling(strategy, "transformed"):
        factor, contribution = strategy.transformed(update)
    if not 0 <= factor <= 1:
        names = ", ".join(type(part).__name__ for part in strategy.transforms)
        raise RunFailed(
            f"the factor of the update of edge {update.client} is {factor} after {names}, expected 0 to 1: "
            "the transform is wrong"
        )
    return factor, contribution


def weight_of(combine: WeightedSum, update: Contribution, heaviest: float) -> float:
    """Returns the weight of an update, above 0 and at most ``heaviest``: more may overflow the integers of the sum."""
    with _calling(combine, "weight"):
        weight = combine.weight(update)
    if not 0 < weight <= heaviest:
        raise RunFailed(
            f"{type(combine).__name__}.weight() of the update of edge {update.client} is {weight}, "
            f"expected above 0 and at most {heaviest} (max_weight): the combination is wrong"
        )
    return weight


def divisor_of(combine: WeightedSum, closed: ClosedRound) -> float:
    """Returns by what the sum is divided, above 0."""
    with _calling(combine, "divisor"):
        divisor = combine.divisor(closed)
    if not 0 < divisor < math.inf:
        raise RunFailed(
            f"{type(combine).__name__}.divisor() of version {closed.version} is {divisor}, expected above 0: "
            "the combination is wrong"
        )
    return divisor


def weights_of(combine: GramCombination, gram: Doubles, closed: ClosedRound) -> Doubles:
    """Returns the weights of the rows of ``gram``, shape (rows,), finite."""
    with _calling(combine, "weights"):
        return _checked(combine, "weights", combine.weights(gram, closed), (len(gram),))


def chosen_by(combine: SelectiveCombination, gram: Doubles) -> list[int]:
    """Returns the places of the updates that it chooses, ascending, at least one."""
    with _calling(combine, "choose"):
        chosen: list[int] = np.asarray(combine.choose(gram)).tolist()
    if not chosen or chosen != sorted(set(chosen)) or not 0 <= chosen[0] <= chosen[-1] < len(gram):
        raise RunFailed(
            f"{type(combine).__name__}.choose() of {len(gram)} updates is {chosen}, expected one or more of the places "
            f"0 to {len(gram) - 1}, ascending: the combination is wrong"
        )
    return chosen


def combined(combine: CoordinateCombination, columns: Columns) -> Doubles:
    """Returns the combined coordinates, shape (coordinates,), finite. ``columns``: shape (coordinates, updates)."""
    with _calling(combine, "combine"):
        return _checked(combine, "combine", combine.combine(columns), (len(columns),))


def stepped(strategy: Strategy, block: Block, closed: ClosedRound) -> Vector:
    """Returns the weights of a block after the optimizer's step, rounded; the strategy's state in it has changed."""
    with _calling(strategy.optimize, "step"):
        strategy.optimize.step(block, closed)
    if strategy.correct is not None:
        with _calling(strategy.correct, "absorb"):
            strategy.correct.absorb(block, closed)
    with np.errstate(over="ignore"):
        weights = block.weights.astype(np.float32)
    if not np.isfinite(weights).all():
        raise RunFailed(
            f"version {closed.version}: a weight is {weights[~np.isfinite(weights)][0]} after "
            f"{type(strategy.optimize).__name__}.step(), expected finite numbers: take a smaller rate of the server "
            "optimizer, or correct it"
        )
    return weights


def report_of(strategy: Strategy, closed: ClosedRound) -> Mapping[str, float]:
    """Returns what the optimizer says of the round, if it says anything."""
    if not isinstance(strategy.optimize, ReportingOptimizer):
        return {}
    with _calling(strategy.optimize, "report"):
        return {name: float(value) for name, value in strategy.optimize.report(closed).items()}


def _checked(part: Any, method: str, found: _Array, shape: tuple[int, ...]) -> _Array:
    if np.shape(found) != shape or not np.isfinite(found).all():
        has = f"shape {np.shape(found)}" if np.shape(found) != shape else "numbers that are not finite"
        raise RunFailed(
            f"{type(part).__name__}.{method}() returns {has}, expected finite numbers of shape {shape}: "
            "the combination is wrong"
        )
    return found
