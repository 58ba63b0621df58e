"""Noise from keys is a normal distribution on the grid, independent from value to value and from key to key."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fl_shared.privacy.gaussian_noise import BLOCK, MAX_DEVIATION, noise, standard_normal

GOLDEN: Final = Path(__file__).parents[3] / "golden" / "privacy" / "noise.json"
MANY = pytest.mark.parametrize(
    "values",
    [pytest.param(10**6, id="million"), pytest.param(10**7, id="ten million", marks=pytest.mark.long)],
)
LEAST: Final = 1e-3
"""The p-value below which the distribution would be another. The keys are fixed, so it is not a matter of luck."""
DEVIATION: Final = 2.0**28


def key(name: str) -> bytes:
    return hashlib.sha256(f"fl-mqtt vector noise {name}".encode()).digest()


def found() -> dict[str, Any]:
    """Values of noise, as this program computes them."""
    places = [0, 1, 2, 3, BLOCK // 2, BLOCK // 2 + 1, BLOCK - 1, BLOCK, 3 * BLOCK + 5]
    one = noise([(key("a"), DEVIATION)], 0, 4 * BLOCK)
    correlated = noise([(key("a"), DEVIATION), (key("b"), -0.5 * DEVIATION)], 0, 4 * BLOCK)
    return {
        "keys": "SHA-256('fl-mqtt vector noise a') and b",
        "deviation": int(DEVIATION),
        "places": places,
        "noise_a": one[places].tolist(),
        "noise_a_minus_half_b": correlated[places].tolist(),
    }


def test_the_golden_values() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found(), indent=1) + "\n", encoding="utf-8")
    assert found() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_it_is_box_muller_of_the_key_stream() -> None:
    """In plain steps: words, uniforms, radius and angle, with NumPy's own functions."""
    cipher = Cipher(algorithms.AES256(key("a")), modes.CTR(bytes(16))).encryptor()
    words = np.frombuffer(cipher.update(bytes(3 * 8 * BLOCK)), "<u8")
    expected = []
    for block in words.reshape(2, 3, BLOCK // 2):
        high, low, turn = (block >> 12).astype(np.float64) * 2.0**-52
        radius = np.sqrt(-2 * np.log(high + (low + 2.0**-53) * 2.0**-52))
        radius *= 1 - 2 * (block[2] & 1).astype(np.float64)
        expected += [radius * np.cos(np.pi * (turn - 0.5)), radius * np.sin(np.pi * (turn - 0.5))]
    assert np.abs(standard_normal(key("a"), 0, 2 * BLOCK) - np.concatenate(expected)).max() < 4e-15


@pytest.mark.parametrize("count", [1, 650, BLOCK - 1, BLOCK, 2 * BLOCK + 1])
def test_blocks_are_those_of_the_whole(count: int) -> None:
    parts = [(key("a"), DEVIATION), (key("b"), -3.0)]
    whole = noise(parts, 0, 5 * BLOCK)
    for start in (0, BLOCK, 2 * BLOCK):
        assert np.array_equal(noise(parts, start, count), whole[start : start + count])
        normals = standard_normal(key("a"), start, count)
        assert np.array_equal(normals, standard_normal(key("a"), 0, 5 * BLOCK)[start : start + count])


def test_deviations_of_several_keys_are_added_before_rounding() -> None:
    parts = [(key("a"), 1000.25), (key("b"), -777.5), (key("c"), 0.125)]
    exact = sum(part * standard_normal(name, 0, 3000) for name, part in parts)
    assert np.array_equal(noise(parts, 0, 3000), np.rint(exact).astype(np.int64))


@MANY
def test_it_is_normal(values: int) -> None:
    """Kolmogorov and Smirnov's test of the distribution, and the first four moments."""
    from scipy import stats  # a second, which only this file's process spends

    normals = standard_normal(key("a"), 0, values)
    assert stats.kstest(normals, "norm", method="asymp").pvalue > LEAST
    for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        moment = float((normals**power).mean())
        assert two_sided((moment - mean) * math.sqrt(values / variance)) > LEAST


@MANY
def test_tails_are_normal(values: int) -> None:
    """The number beyond 4 standard deviations, on each side."""
    from scipy import stats  # a second, which only this file's process spends

    normals = standard_normal(key("a"), 0, values)
    expected = values * float(stats.norm.sf(4))
    for count in ((normals > 4).sum(), (normals < -4).sum()):
        assert two_sided((int(count) - expected) / math.sqrt(expected)) > LEAST


@MANY
@pytest.mark.parametrize("deviation", [2.0**8, DEVIATION, MAX_DEVIATION])
def test_low_bits_are_uniform(values: int, deviation: float) -> None:
    """At the least deviation, too, where a bit is as coarse as it gets."""
    from scipy import stats  # a second, which only this file's process spends

    bits = 3
    counts = np.bincount(noise([(key("b"), deviation)], 0, values) & (2**bits - 1), minlength=2**bits)
    assert stats.chisquare(counts).pvalue > LEAST


@MANY
def test_values_are_independent_of_others(values: int) -> None:
    """Of neighbours, of the other of the pair, and of the next block; also their squares."""
    normals = standard_normal(key("a"), 0, values)
    for lag in (1, 2, 3, BLOCK // 2 - 1, BLOCK // 2, BLOCK // 2 + 1, BLOCK, BLOCK + 1):
        check_uncorrelated(normals[lag:], normals[:-lag])


@MANY
def test_keys_are_independent_of_each_other(values: int) -> None:
    """Keys that differ in one bit, too."""
    first = key("a")
    one = standard_normal(first, 0, values)
    for other in (key("b"), bytes([first[0] ^ 1]) + first[1:], first[:-1] + bytes([first[-1] ^ 0x80])):
        check_uncorrelated(one, standard_normal(other, 0, values))


def check_uncorrelated(one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    scale = math.sqrt(len(one))
    assert two_sided(float((one * other).mean()) * scale) > LEAST / 8
    assert two_sided(float(((one**2 - 1) * (other**2 - 1)).mean()) * scale / 2) > LEAST / 8


def two_sided(score: float) -> float:
    return math.erfc(abs(score) / math.sqrt(2))


@pytest.mark.parametrize(
    ("parts", "start", "text"),
    [
        ([(bytes(16), 1000.0)], 0, "a key of 16 bytes, expected 32"),
        ([(bytes(32), 1000.0)], 4096, "start: 4096, expected a multiple of"),
        ([(bytes(32), 255.0)], 0, "a deviation of 255 units of the grid, expected 2.8 to 2.34"),
        ([(bytes(32), 2.0**34), (bytes(32), -(2.0**34))], 0, "a deviation of 2.43e.10 units"),
        ([(bytes(32), math.nan)], 0, "a deviation of nan units"),
        ([], 0, "a deviation of 0 units"),
    ],
)
def test_what_makes_no_noise_is_refused(parts: list[tuple[bytes, float]], start: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        noise(parts, start, 10)
