"""The noise that a private run adds to the sum of a round, before it is divided."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fl_aggregator.aggregation.combining import Noise
from fl_aggregator.privacy.adaptive_clip import next_clip
from fl_aggregator.privacy.bounded_mean import noisy_mean, on_grid
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
        keys = (self._key_of(effect), *self._earlier(effect.version, len(self._plan.coefficients) - 1))
        unit = (effect.clip or self._plan.clip) * 2.0**scale_bits
        parts = [(key, one * unit) for key, one in zip(keys, self._plan.deviations, strict=False)]

        def of_values(start: int, count: int) -> NDArray[np.int64]:
            return noise(parts, start, count)

        return of_values

    def next_clip(self, effect: do.Average, within: int, values: int, scale_bits: int) -> float | None:
        """Returns the clip of the release after this one, null if it does not change.

        ``within``: how many updates are not longer than that of this one. Raises ``RunFailed`` and ``OSError``.
        """
        if effect.clip is None:
            return None
        beyond = len(effect.contributors) - within
        total, count = within * on_grid(1.0) + beyond * on_grid(0.0), self._count(effect)
        share = noisy_mean(total, count, self._plan.mean_deviation, self._key_of(effect), "within clip")
        return next_clip(effect.clip, self._plan.clip, share, values, scale_bits)

    def accuracy(self, effect: do.Average) -> float | None:
        """Returns the noisy mean of the edges' accuracies, null if they do not say them. Raises as `next_clip` does."""
        if effect.accuracies is None:
            return None
        count, deviation = self._count(effect), self._plan.mean_deviation
        return noisy_mean(effect.accuracies, count, deviation, self._key_of(effect), "accuracy")

    def _count(self, effect: do.Average) -> int:
        """Returns by what a sum is divided: how many edges are in it is as secret as who they are."""
        return self._plan.expected if self._plan.against == "models" else len(effect.contributors)

    def _key_of(self, effect: do.Average) -> bytes:
        if self._seed is not None:
            return _known_key(self._seed, effect.version)
        return self._keys.key_of(effect.version, _digest(effect))

    def _earlier(self, version: int, count: int) -> tuple[bytes, ...]:
        if self._seed is None:
            return self._keys.earlier(version, count)
        return tuple(
            [_known_key(self._seed, one) for one in range(version - 1, max(0, version - 1 - count), -1)]
        )

    def released(self, version: int) -> None:
        """Forgets the keys that no release after ``version`` needs. Raises ``OSError``."""
        if self._seed is None:
            self._keys.forget(version + 2 - len(self._plan.coefficients))


def _digest(effect: do.Average) -> str:
    """Identifies what a round releases: by its base, its number, its clip, the updates in it and their accuracies."""
    base = "" if effect.base is None else effect.base.digest
    numbers = (str(one) for one in (effect.round, effect.clip, effect.accuracies))
    updates = [f"{update.client}\0{update.digest}" for update in effect.contributors]
    return hashlib.sha256("\0".join((base, *numbers, *updates)).encode()).hexdigest()


def _known_key(seed: int, version: int) -> bytes:
    return hashlib.sha256(f"fl-mqtt insecure noise\0{seed}\0{version}".encode()).digest()
