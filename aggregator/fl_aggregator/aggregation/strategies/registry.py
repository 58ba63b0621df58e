"""How the updates of a round become the next model; one small file each.

A strategy makes the next model of the exact weighted mean of the updates. It neither logs, samples nor reads or
writes anything. A new one is a module with a class, and a line in ``_STRATEGIES``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fl_shared.errors import UserError
from fl_shared.tensors.manifest import Vector


class Strategy(Protocol):
    """``sections``: what an update brings, ascending; all with the manifest of the model's weights."""

    sections: tuple[str, ...]

    def next_weights(self, base: Vector, mean_delta: NDArray[np.float64]) -> Vector:
        """The next weights, from the base's and the mean of the updates weighted by examples.

        Called for one block of coordinates after the other, so that no second copy of a model is needed.
        """
        ...


_STRATEGIES: Final = {"fedavg": ("fl_aggregator.aggregation.strategies.fedavg", "FedAvg")}


def names() -> tuple[str, ...]:
    """The names of all strategies, in alphabetical order."""
    return tuple(sorted(_STRATEGIES))


def load(name: str) -> Strategy:
    """The strategy called ``name``. Raises ``UserError`` for an unknown name."""
    if name not in _STRATEGIES:
        raise UserError(f"--strategy {name!r}: expected one of {', '.join(names())}")
    module, attribute = _STRATEGIES[name]
    return cast(Strategy, getattr(import_module(module), attribute)())
