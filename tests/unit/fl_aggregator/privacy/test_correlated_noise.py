"""Correlated noise: how much one edge changes at most, what the noise is, and how far it moves a model."""

from __future__ import annotations

import itertools
import math
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fl_aggregator.privacy.correlated_noise import (
    best_gamma,
    coefficients,
    prefix_error,
    sensitivities,
    sensitivity_of,
    strategy_column,
    worst_sensitivity,
)
from fl_shared.privacy.gaussian_noise import noise

GAMMAS: Final = tuple(step / 20 for step in range(20))
BANDS: Final = (1, 2, 3, 4)

Matrix = NDArray[np.float64]


def toeplitz(column: Matrix) -> Matrix:
    """The lower triangular matrix with this first column."""
    size = len(column)
    return np.array([[column[row - at] if row >= at else 0.0 for at in range(size)] for row in range(size)])


def noising(gamma: float, bands: int, releases: int) -> Matrix:
    """D."""
    d = coefficients(gamma, bands)[:releases]
    return toeplitz(np.array([*d, *[0.0] * (releases - len(d))]))


@pytest.mark.parametrize("bands", BANDS)
def test_the_coefficients_are_those_of_the_power(bands: int) -> None:
    """(1 − x)^γ by the binomial series, with the gamma function."""
    for gamma in GAMMAS[1:]:
        series = [
            (-1) ** i * math.gamma(gamma + 1) / (math.gamma(i + 1) * math.gamma(gamma - i + 1))
            for i in range(bands)
        ]
        assert coefficients(gamma, bands) == pytest.approx(series)
    assert coefficients(0.0, bands) == (1.0,)


def test_two_square_roots_are_the_difference() -> None:
    assert np.convolve(coefficients(0.5, 50), coefficients(0.5, 50))[:50] == pytest.approx(
        [1, -1, *[0] * 48], abs=1e-15
    )


@pytest.mark.parametrize("bands", [*BANDS, 8, 32])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_column_is_that_of_the_inverse_positive_and_decreasing(gamma: float, bands: int) -> None:
    """Also with the bands cut off, so the worst pattern is 0, apart, 2 apart …"""
    column = strategy_column(coefficients(gamma, bands), 60)
    assert np.abs(toeplitz(column) @ noising(gamma, bands, 60) - np.eye(60)).max() < 1e-12
    if gamma and bands > 1:
        assert (column > 0).all()
        assert (np.diff(column) < 0).all()


@pytest.mark.parametrize("bands", BANDS)
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("releases", [4, 10])
def test_the_sensitivity_is_that_of_the_worst_of_all_patterns(
    releases: int, gamma: float, bands: int
) -> None:
    column = strategy_column(coefficients(gamma, bands), releases)
    patterns = np.array(list(itertools.product((0.0, 1.0), repeat=releases)))
    lengths = np.linalg.norm(patterns @ toeplitz(column).T, axis=1)
    times = patterns.sum(axis=1)
    nearest = np.array([np.diff(np.flatnonzero(pattern)).min(initial=releases) for pattern in patterns])
    for apart, most in itertools.product(range(1, releases + 1), range(1, releases + 1)):
        worst = lengths[(nearest >= apart) & (times <= most)].max()
        assert worst_sensitivity(column, apart, most, releases) == pytest.approx(worst, rel=1e-12)
    assert worst_sensitivity(column, 3, None, releases) == pytest.approx(
        lengths[nearest >= 3].max(), rel=1e-12
    )


@given(
    gamma=st.sampled_from(GAMMAS),
    bands=st.sampled_from(BANDS),
    patterns=st.lists(st.sets(st.integers(0, 29)).map(sorted), max_size=6),
    released=st.integers(0, 30),
)
def test_the_sensitivity_of_what_is_released_so_far(
    gamma: float, bands: int, patterns: list[list[int]], released: int
) -> None:
    d = coefficients(gamma, bands)
    column = strategy_column(d, 30)
    expected = [
        float(np.linalg.norm(toeplitz(column)[:released, pattern].sum(axis=1))) for pattern in patterns
    ]
    assert [sensitivity_of(column, pattern, released) for pattern in patterns] == pytest.approx(expected)
    assert sensitivities(d, patterns, released).tolist() == pytest.approx(expected)


@given(
    gamma=st.sampled_from(GAMMAS),
    bands=st.sampled_from(BANDS),
    apart=st.integers(1, 12),
    gaps=st.lists(st.integers(0, 20), max_size=8),
    start=st.integers(0, 20),
    released=st.integers(1, 60),
)
def test_no_pattern_exceeds_what_is_planned(
    gamma: float, bands: int, apart: int, gaps: list[int], start: int, released: int
) -> None:
    pattern = [one for one in itertools.accumulate([start, *[apart + gap for gap in gaps]]) if one < 60]
    column = strategy_column(coefficients(gamma, bands), 60)
    planned = worst_sensitivity(column, apart, len(gaps) + 1, 60)
    assert sensitivity_of(column, pattern, released) <= planned * (1 + 1e-12)


@pytest.mark.parametrize(("gamma", "bands"), [(0.5, 4), (0.8, 2), (0.3, 3)])
def test_the_noise_of_releases_has_the_covariance_of_d(gamma: float, bands: int) -> None:
    values, deviation, releases = 100_000, 2.0**20, 6
    d = coefficients(gamma, bands)
    keys = [bytes([release]) * 32 for release in range(releases)]
    rows = np.array(
        [
            noise([(keys[t - i], one * deviation) for i, one in enumerate(d[: t + 1])], 0, values) / deviation
            for t in range(releases)
        ]
    )
    expected = noising(gamma, bands, releases) @ noising(gamma, bands, releases).T
    variances = np.outer(np.diag(expected), np.diag(expected)) + expected**2
    assert (np.abs(rows @ rows.T / values - expected) < 5 * np.sqrt(variances / values)).all()


def test_one_band_is_independent_noise() -> None:
    assert coefficients(0.7, 1) == (1.0,)
    assert best_gamma(100, 10, 10, bands=1) == 0.0
    column = strategy_column((1.0,), 20)
    assert sensitivity_of(column, [3, 4, 9], 20) == math.sqrt(3)
    assert sensitivity_of(column, [3, 4, 9], 5) == math.sqrt(2)
    assert worst_sensitivity(column, 6, 3, 20) == math.sqrt(3)


@pytest.mark.parametrize(("gamma", "bands"), [(0.0, 1), (0.5, 4), (0.8, 2)])
@pytest.mark.parametrize("releases", [1, 3, 40])
def test_the_prefix_error_is_that_of_sums(gamma: float, bands: int, releases: int) -> None:
    sums = np.tril(np.ones((releases, releases))) @ noising(gamma, bands, releases)
    expected = math.sqrt((sums**2).sum() / releases)
    assert prefix_error(coefficients(gamma, bands), releases) == pytest.approx(expected)


def relative_error(releases: int, apart: int, times: int, bands: int) -> float:
    """To that of independent noise, at the same ε."""
    d = coefficients(best_gamma(releases, apart, times, bands), bands)
    worst = worst_sensitivity(strategy_column(d, releases), apart, times, releases)
    return prefix_error(d, releases) * worst / (prefix_error((1.0,), releases) * math.sqrt(times))


@pytest.mark.parametrize(
    ("releases", "apart", "times", "least", "most"),
    [(100, 1, 100, 1.0, 1.0), (100, 4, 25, 0.55, 0.6), (100, 10, 10, 0.4, 0.5), (1000, 50, 20, 0.2, 0.25)],
)
def test_correlated_noise_moves_a_model_less(
    releases: int, apart: int, times: int, least: float, most: float
) -> None:
    assert least <= relative_error(releases, apart, times, bands=4) <= most


def test_gamma_is_the_least_error_of_its_grid() -> None:
    errors = {}
    for gamma in GAMMAS:
        column = strategy_column(coefficients(gamma, 4), 100)
        errors[gamma] = prefix_error(coefficients(gamma, 4), 100) * worst_sensitivity(column, 10, 10, 100)
    assert best_gamma(100, 10, 10, bands=4) == min(errors, key=errors.__getitem__) == 0.6


@pytest.mark.parametrize(("gamma", "bands"), [(-0.1, 2), (1.0, 2), (0.5, 0)])
def test_what_is_no_factorisation_is_refused(gamma: float, bands: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        coefficients(gamma, bands)
