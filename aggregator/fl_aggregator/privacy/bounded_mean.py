"""The noisy mean of one number from 0 to 1 of each edge: what a release tells besides its model.

Each edge adds its number less ½, so ½ at most. With noise of standard deviation d that is a Gaussian mechanism of noise
multiplier 2 d. Together with the model's noise it is one of noise multiplier z: z^-2 = (model's)^-2 + Σ (2 d)^-2
(Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping", arXiv:1905.03871, theorem 1). With
correlated noise, an edge shifts the models by √k clips at least in k releases, so that z holds for them as well.

All is on a grid, as the sum of the updates is. Numbers are multiples of 2^-16, so that the noise fits for up to 5
million edges.
"""

from __future__ import annotations

import hashlib
from typing import Final

from fl_shared.privacy.gaussian_noise import MAX_DEVIATION, noise

PLACES: Final = 16
"""Binary places of a number."""


def deviation_of(multiplier: float, expected: int) -> float:
    """The standard deviation of the noise of a sum of ``expected`` numbers: a 20th of them, but at least 1.2 z.

    So the model's noise grows by 10 % at most for one such mean, and by 24 % for two.
    """
    return max(expected / 20, 1.2 * multiplier)


def has_room(deviation: float) -> bool:
    """Whether the noise of a sum may have this standard deviation."""
    return deviation * 2.0**PLACES <= MAX_DEVIATION


def model_multiplier(multiplier: float, deviation: float, means: int) -> float:
    """The noise multiplier of the model that with ``means`` noisy means makes ``multiplier`` together."""
    return float((multiplier**-2 - means * (2 * deviation) ** -2) ** -0.5)


def on_grid(number: float) -> int:
    """What an edge with this number, 0 to 1, adds to the sum."""
    return round((number - 0.5) * 2**PLACES)


def noisy_mean(total: int, count: int, deviation: float, key: bytes, name: str) -> float:
    """The mean of ``count`` numbers whose sum is ``total``, with noise: it may be below 0 or above 1.

    An edge without a number adds 0, and counts as ½. ``key``: of the release; ``name`` sets means of one release
    apart, and from its model.
    """
    own = hashlib.sha256(b"fl-mqtt mean\0" + name.encode() + b"\0" + key).digest()
    added = int(noise([(own, deviation * 2.0**PLACES)], 0, 1)[0])
    return 0.5 + (total + added) / (count * 2.0**PLACES)
