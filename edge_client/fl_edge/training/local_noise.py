"""Clips an update, and adds Gaussian noise to it, before anything of it leaves the edge (``--dp-local``).

The clipped values are integers on a grid, and the noise is a rounded Gaussian there: x + rint(z) = rint(x + z). What is
sent follows from that integer alone, by float64, which is exact, and one rounding to float32. So no low bits of floats
tell what was added (Mironov 2012; Jin and others 2022, arXiv:2112.05307).
"""

from __future__ import annotations

import math

import numpy as np

from fl_edge.session.privacy import LocalNoise
from fl_shared.privacy.clipping import private_scale_bits
from fl_shared.privacy.distributed_noise import NoisyIntegers
from fl_shared.privacy.gaussian_noise import BLOCK
from fl_shared.tensors.manifest import Vector


def add_noise(delta: Vector, local: LocalNoise, key: bytes) -> None:
    """Replaces ``delta`` by its clipped values with noise. ``key``: from a cryptographic source, and used once.

    Raises ``ValueError`` for a value that is not finite, or if the clip is too short for so many values.
    """
    places = private_scale_bits(local.clip, local.noise, 1)
    deviation = math.ldexp(local.noise * local.clip, places)
    write = NoisyIntegers(delta, local.clip, places, deviation, key)
    integers = np.empty(BLOCK, np.int64)
    for start in range(0, len(delta), BLOCK):
        part = delta[start : start + BLOCK]
        write(start, integers[: len(part)])
        part[:] = np.ldexp(integers[: len(part)].astype(np.float64), -places)
