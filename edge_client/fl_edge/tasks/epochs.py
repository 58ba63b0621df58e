"""What local training in torch and in NumPy have in common. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fl_edge.errors import DivergedError
from fl_shared.protocol.messages import TrainingSettings

EpochOrders = Callable[[int], Any]
"""Returns the order of so many examples in the next epoch: an array or a tensor of int64, shape (examples,)."""


def numpy_orders(seed: np.random.SeedSequence) -> EpochOrders:
    """Returns the orders that PCG64 draws from ``seed``."""
    return np.random.Generator(np.random.PCG64(seed)).permutation


def check_loss(loss: float, epoch: int, settings: TrainingSettings) -> None:
    """Raises ``DivergedError`` unless the mean ``loss`` of ``epoch`` (from 0) is finite."""
    if not math.isfinite(loss):
        raise DivergedError(
            f"training diverged: the loss is {loss} in epoch {epoch + 1} of {settings.epochs} "
            f"(lr {settings.lr:g}, momentum {settings.momentum:g}: try a smaller learning rate)"
        )
