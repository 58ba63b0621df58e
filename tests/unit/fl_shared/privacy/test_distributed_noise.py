"""The parts of edges add up to the noise that is promised, also if some of them add none."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest

from fl_shared.privacy.distributed_noise import NoisyIntegers, check_deviation, noise_of_edge, noise_of_sum
from fl_shared.privacy.gaussian_noise import BLOCK, KEY, noise
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.masked import MASKED
from fl_shared.tensors.manifest import Vector
from tests.support.clipped_updates import clip_to_grid

NOISE, CLIP, PLACES = 2.0, 1.0, 24
LEAST, COLLUDERS, EDGES = 6, 1, 10
PART = noise_of_edge(NOISE, LEAST, COLLUDERS) * CLIP * 2.0**PLACES
"""The deviation of one edge's part, in units of the grid."""


def integers_of(delta: Vector, key: bytes, step: int = BLOCK) -> Int64s:
    write, out = NoisyIntegers(delta, CLIP, PLACES, PART, key), np.empty(len(delta), np.int64)
    for start in range(0, len(delta), step):
        write(start, out[start : start + step])
    return out


def delta_of(seed: int, values: int) -> Vector:
    return np.random.default_rng(seed).normal(0, 2 / math.sqrt(values), values).astype(np.float32)


def noises_of_sums(values: int) -> list[float]:
    """The standard deviations of what sums of 1, 2, … noisy updates have besides clipped ones, in units of the clip.

    They are summed in 32 bits, as masked updates are.
    """
    total, found, masked = np.zeros(values, np.uint32), [], MASKED[32]
    for edge in range(EDGES):
        delta = delta_of(edge, values)
        total += integers_of(delta, os.urandom(KEY)).astype(np.uint32)
        total -= clip_to_grid(delta, CLIP, PLACES).astype(np.uint32)
        found.append(float(np.std(masked.signed(total.copy()))) / (CLIP * 2.0**PLACES))
    return found


def test_d13_the_noise_of_a_sum_is_as_designed() -> None:
    """D13 in docs/differential-privacy.md. The variance of 10^6 normal values has a relative deviation of 0.0014."""
    found = noises_of_sums(10**6)
    for edges in range(LEAST, EDGES + 1):
        designed = noise_of_sum(NOISE, LEAST, COLLUDERS, edges + COLLUDERS)  # all of these add their part
        assert found[edges - 1] ** 2 == pytest.approx(designed**2, rel=0.01)
        honest = found[edges - COLLUDERS - 1]
        assert honest**2 > NOISE**2 * 0.99, "also if colluders add no noise, or tell it"


def test_the_multiplier_of_the_least_sum_is_the_promised_one() -> None:
    assert noise_of_sum(NOISE, LEAST, COLLUDERS, LEAST) == pytest.approx(NOISE)
    assert noise_of_sum(NOISE, LEAST, COLLUDERS, EDGES) > NOISE
    assert noise_of_sum(NOISE, LEAST, 0, EDGES) == pytest.approx(noise_of_edge(NOISE, LEAST, 0) * EDGES**0.5)


@pytest.mark.parametrize("step", [BLOCK, 1000, 3 * BLOCK, 2 * BLOCK + 1])
def test_the_integers_are_those_of_the_clipped_update_with_noise_whatever_is_asked_for_at_a_time(
    step: int,
) -> None:
    delta, key = delta_of(1, 9 * BLOCK + 777), bytes(range(KEY))
    expected = clip_to_grid(delta, CLIP, PLACES) + noise([(key, PART)], 0, len(delta))
    np.testing.assert_array_equal(integers_of(delta, key, step), expected)


@pytest.mark.parametrize("deviation", [0.0, 255.0, 2.0**41, math.inf, math.nan])
def test_noise_that_is_too_coarse_or_too_large_for_the_grid_is_refused(deviation: float) -> None:
    with pytest.raises(ValueError, match="units of the grid, expected 2\\^8 to 2\\^34"):
        check_deviation(deviation)
    with pytest.raises(ValueError, match="units of the grid"):
        NoisyIntegers(np.zeros(3, np.float32), CLIP, PLACES, deviation, bytes(KEY))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_value_that_is_not_finite_gets_noise(value: float) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        NoisyIntegers(np.array([0, value], np.float32), CLIP, PLACES, PART, bytes(KEY))


@pytest.mark.parametrize("deviation", [1.5, 3.0])
def test_a_sum_of_rounded_noise_is_rounded_noise_with_less_than_a_unit_more(deviation: float) -> None:
    """What the module says of sums, with noise that is coarse enough to see the error: e^(-π² σ²)."""
    places = np.arange(-60, 61)
    one = _normal((places + 0.5) / deviation) - _normal((places - 0.5) / deviation)
    both = np.convolve(one, one, mode="same")
    # The density of N(0, 2 σ²) and two uniform numbers together: the sum of those is within a triangle.
    points, weights = np.polynomial.legendre.leggauss(40)
    expected = np.zeros(len(places))
    for side in (-1, 1):
        shifts = side * (points + 1) / 2
        density = np.exp(-((places[:, None] - shifts) ** 2) / (4 * deviation**2)) / (
            deviation * math.sqrt(4 * math.pi)
        )
        expected += density @ (weights / 2 * (1 - np.abs(shifts)))
    error = np.abs(both - expected).max()
    assert error < 2 * math.exp(-((math.pi * deviation) ** 2)) + 1e-15
    if deviation < 2:
        assert error > 1e-13, "the bound says something"


def _normal(x: np.ndarray) -> np.ndarray:
    return np.array([math.erfc(-one / math.sqrt(2)) / 2 for one in x])
