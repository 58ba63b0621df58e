"""The noise that a private run adds to the sum of a round, before it is divided."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.aggregation.combining import Noise
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_aggregator.round import effects as do
from fl_aggregator.storage.noise_keys import NoiseKeys
from fl_shared.privacy.gaussian_noise import noise


class ReleaseNoise:
    """Makes the noise of each release from random keys, or from ``seed``, if there is one: it is not secret then."""

    def __init__(self, plan: PrivacyPlan, keys: NoiseKeys, seed: int | None) -> None:
        self._plan = plan
        self._keys = keys
        self._seed = seed

    def of(self, effect: do.Average, scale_bits: int) -> Noise:
        """Returns the noise of a release, in units of 2^-scale_bits. Raises ``RunFailed`` and ``OSError``."""
        version, others = effect.version, len(self._plan.coefficients) - 1
        if self._seed is None:
            keys = (self._keys.key_of(version, _digest(effect)), *self._keys.earlier(version, others))
        else:
            keys = tuple(
                [_known_key(self._seed, one) for one in range(version, max(0, version - 1 - others), -1)]
            )
        unit = self._plan.clip * 2.0**scale_bits
        parts = [(key, one * unit) for key, one in zip(keys, self._plan.deviations, strict=False)]

        def of_values(start: int, count: int) -> NDArray[np.int64]:
            return noise(parts, start, count)

        return of_values

    def released(self, version: int) -> None:
        """Forgets the keys that no release after ``version`` needs. Raises ``OSError``."""
        if self._seed is None:
            self._keys.forget(version + 2 - len(self._plan.coefficients))


def _digest(effect: do.Average) -> str:
    """Identifies the sum of a round: by its base, its number, and the updates in it."""
    base = "" if effect.base is None else effect.base.digest
    updates = [f"{update.client}\0{update.digest}" for update in effect.contributors]
    return hashlib.sha256("\0".join((base, str(effect.round), *updates)).encode()).hexdigest()


def _known_key(seed: int, version: int) -> bytes:
    return hashlib.sha256(f"fl-mqtt insecure noise\0{seed}\0{version}".encode()).digest()
