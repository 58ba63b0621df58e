"""Noise of which each edge of a masked sum adds a part: nobody but the edges has to be trusted with it.

The idea is that of Dwork and others 2006, "Our Data, Ourselves". Each edge adds rint(N(0, σ²)) to the integers of its
clipped update, with σ² = (z S)² / (least − C). So a sum of at least ``least`` updates, of which C edges may have left
out their noise, or tell it, has noise of variance (z S)² that nobody knows.

A sum of k such integers, σ ≥ 2^8, is as private as N(0, k σ²). The probability that rint(N(0, σ²)) is n is f(n), f the
density of a Gaussian and an independent uniform number between −½ and ½ together. By Poisson's summation formula the
discrete convolution of k of them is the continuous one at integers, to e^(−π² σ²) < 10^−1000. So the sum is
distributed as rint(N(0, k σ²) + u), u the sum of k − 1 such uniform numbers; and x + rint(y) = rint(x + y) for an
integer x, so that it follows from x + N(0, k σ²) alone. (Canonne, Kamath, Steinke 2020, arXiv:2004.00010, and Kairouz,
Liu, Steinke 2021, arXiv:2102.06387, bound the same for discrete Gaussians.)
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from fl_shared.privacy.clipping import MIN_DEVIATION, clipped
from fl_shared.privacy.gaussian_noise import BLOCK, MAX_DEVIATION, noise
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.manifest import Vector

_PIECE: Final = 8 * BLOCK
"""Values whose noise is made at a time."""


def noise_of_edge(noise_multiplier: float, least: int, colluders: int) -> float:
    """The noise multiplier of one edge's part: z / √(least − C). Those of k edges have √k times that together."""
    return noise_multiplier / math.sqrt(least - colluders)


def noise_of_sum(noise_multiplier: float, least: int, colluders: int, edges: int) -> float:
    """The noise multiplier of a sum of ``edges`` ≥ ``least`` updates that ``colluders`` of them do not know."""
    return noise_of_edge(noise_multiplier, least, colluders) * math.sqrt(edges - colluders)


def check_deviation(deviation: float) -> None:
    """Raises ``ValueError`` unless the deviation of an edge's part, in units of the grid, makes the noise private."""
    if not MIN_DEVIATION <= deviation <= MAX_DEVIATION:
        raise ValueError(f"noise: a deviation of {deviation:.3g} units of the grid, expected 2^8 to 2^34")


class NoisyIntegers:
    """The integers of ``delta``, shape (values,), clipped as `clipped` does it, with an edge's part of the noise.

    ``deviation``: of the noise, in units of the grid. ``key``: from a cryptographic source, and used once. Raises
    ``ValueError`` for a value that is not finite, and for a clip or a deviation that is unfit for the grid.
    """

    def __init__(self, delta: Vector, clip: float, scale_bits: int, deviation: float, key: bytes) -> None:
        check_deviation(deviation)
        self._write = clipped(delta, clip, scale_bits)
        self._part = (key, deviation)
        self._values = len(delta)
        self._piece = -1
        self._noise = np.empty(0, np.int64)

    def __call__(self, start: int, out: Int64s) -> None:
        """Writes the integers from ``start`` on to ``out``, which says how many."""
        self._write(start, out)
        done = 0
        while done < len(out):
            piece, offset = divmod(start + done, _PIECE)
            if piece != self._piece:
                first = piece * _PIECE
                self._piece = piece
                self._noise = noise([self._part], first, min(_PIECE, self._values - first))
            some = self._noise[offset : offset + len(out) - done]
            out[done : done + len(some)] += some
            done += len(some)
