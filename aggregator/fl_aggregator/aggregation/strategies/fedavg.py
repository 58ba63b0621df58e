"""Federated averaging: the next model is the mean of the local ones, weighted by their examples.

McMahan et al. 2017, "Communication-Efficient Learning of Deep Networks from Decentralized Data", algorithm 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fl_shared.tensors.manifest import Vector
from fl_shared.tensors.sections import DELTA


class FedAvg:
    """w ← w + Σ nₖ Δₖ / Σ nₖ, added in float64 and rounded once to float32."""

    sections: tuple[str, ...] = (DELTA,)

    def next_weights(self, base: Vector, mean_delta: NDArray[np.float64]) -> Vector:
        """Returns the sum of base and mean, computed in float64 and rounded once to float32."""
        return (base + mean_delta).astype(np.float32)
