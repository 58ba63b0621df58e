"""The strategies, by name.

A strategy makes the next model from the exact weighted mean of the updates. It does not log, sample, read or
write. A new strategy is a module with one class, and an entry in ``_STRATEGIES``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fl_shared.errors import UserError
from fl_shared.tensors.manifest import Vector


class Strategy(Protocol):
    """Makes the next model from a round's mean.

    ``sections``: what each update contains, in ascending order; all have the manifest of the model's weights.
    """

    sections: tuple[str, ...]

    def next_weights(self, base: Vector, mean_delta: NDArray[np.float64]) -> Vector:
        """Returns the next weights, from those of the base and the mean of the deltas weighted by examples.

        All three have the same shape. Called for one block of coordinates after another, so that no second
        copy of a model is needed.
        """
        ...


_STRATEGIES: Final = {"fedavg": ("fl_aggregator.aggregation.strategies.fedavg", "FedAvg")}


def names() -> tuple[str, ...]:
    """Returns the names of all strategies, in alphabetical order."""
    return tuple(sorted(_STRATEGIES))


def load(name: str) -> Strategy:
    """Returns the strategy called ``name``. Raises ``UserError`` for an unknown name."""
    if name not in _STRATEGIES:
        raise UserError(f"--strategy {name!r}: expected one of {', '.join(names())}")
    module, attribute = _STRATEGIES[name]
    return cast(Strategy, getattr(import_module(module), attribute)())
