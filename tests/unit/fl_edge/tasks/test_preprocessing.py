"""Pictures become what the models were trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")

from hypothesis import given
from hypothesis import strategies as st

from fl_edge.tasks import pictures as p
from tests.support.pictures import pixels, ring

pytestmark = pytest.mark.edge


def test_a_digit_of_the_native_size_is_taken_as_it_is() -> None:
    mnist = ring(28, 4, 6, 20, 12)
    np.testing.assert_array_equal(p.preprocess_digit(mnist.astype(np.float32)), mnist)
    coarse = np.zeros((8, 8), dtype=np.float32)
    coarse[:, 2:6] = 255
    np.testing.assert_array_equal(p.preprocess_coarse_digit(coarse), coarse * (16 / 255))


@pytest.mark.parametrize("fit", [p.preprocess_digit, p.preprocess_coarse_digit, p.preprocess_garment])
@pytest.mark.parametrize("size", [8, 28, 60, 300])
def test_dark_on_light_is_inverted(fit: Any, size: int) -> None:
    light = ring(size, size // 7, size // 3, size - 2 * (size // 7), size // 3).astype(np.float32)
    np.testing.assert_allclose(fit(255 - light), fit(light), atol=1e-3)
    assert fit(light).max() > 0


def test_eight_by_eight_in_the_data_sets_own_scale_is_understood() -> None:
    rows = np.zeros((8, 8))
    rows[:, 3:5] = 16
    np.testing.assert_allclose(
        p.preprocess_coarse_digit(p.decode_picture(pixels(rows.tolist()))), rows, rtol=1e-6
    )


def test_a_digit_is_scaled_into_20_by_20_and_centred_by_mass() -> None:
    fitted = p.preprocess_digit(ring().astype(np.float32))
    rows, columns = np.nonzero(fitted > 30)
    assert fitted.shape == (28, 28)
    assert rows.max() - rows.min() + 1 == 20
    assert columns.max() - columns.min() + 1 == 10
    weights = fitted / fitted.sum()
    centre = (weights.sum(1) @ np.arange(28), weights.sum(0) @ np.arange(28))
    np.testing.assert_allclose(centre, (13.5, 13.5), atol=0.51)


def test_a_lopsided_digit_stays_inside() -> None:
    lopsided = np.zeros((100, 100), dtype=np.float32)
    lopsided[80:, :] = 255
    lopsided[:80, 98:] = 255
    assert p.preprocess_digit(lopsided).shape == (28, 28)


def test_a_coarse_digit_fills_the_height_and_is_centred() -> None:
    fitted = p.preprocess_coarse_digit(ring().astype(np.float32))
    assert fitted.shape == (8, 8)
    assert fitted.max() == pytest.approx(16)
    assert (fitted.max(axis=1) > 8).all()
    np.testing.assert_allclose(fitted, fitted[:, ::-1], atol=1e-3)
    assert fitted[:, 0].max() == 0


def test_paper_is_not_ink() -> None:
    """A faint digit on grey, noisy paper is the same digit."""
    rng = np.random.default_rng(0)
    clean = ring(120, 20, 50, 80, 40).astype(np.float32)
    photo = np.clip(190 - 0.5 * clean + rng.normal(0, 4, clean.shape), 0, 255).astype(np.float32)
    np.testing.assert_allclose(p.preprocess_digit(photo), p.preprocess_digit(clean), atol=50)
    assert p.preprocess_digit(photo)[:3].max() == 0


def test_where_the_digit_lies_on_the_page_does_not_matter() -> None:
    here, there = (ring(100, top, left).astype(np.float32) for top, left in ((0, 0), (60, 75)))
    np.testing.assert_array_equal(p.preprocess_coarse_digit(here), p.preprocess_coarse_digit(there))
    np.testing.assert_array_equal(p.preprocess_digit(here), p.preprocess_digit(there))


def test_a_garment_is_trimmed_and_its_longer_side_fills_the_frame() -> None:
    page = np.full((200, 300), 255, dtype=np.float32)
    page[20:160, 100:170] = 60
    fitted = p.preprocess_garment(page)
    assert fitted.shape == (28, 28)
    assert (fitted[:, 7:21] > 250).all()
    assert fitted[:, :7].max() == fitted[:, 21:].max() == 0


@pytest.mark.parametrize("shape", [(32, 32, 3), (32, 32), (64, 48, 3), (5, 7), (1, 1, 3)])
def test_colour_pictures_become_32_by_32(shape: tuple[int, ...]) -> None:
    picture = np.full(shape, 100, dtype=np.float32)
    fitted = p.preprocess_colour(picture, 32)
    assert fitted.shape == (32, 32, 3)
    np.testing.assert_allclose(fitted, 100)


@pytest.mark.parametrize("fit", [p.preprocess_digit, p.preprocess_coarse_digit, p.preprocess_garment])
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (3, 2), (28, 28), (8, 8), (100, 100)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_picture_of_nothing_is_not_an_error(fit: Any, shape: tuple[int, int], value: int) -> None:
    assert np.isfinite(fit(np.full(shape, value, dtype=np.float32))).all()


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32))
def test_pictures_of_any_size_fit(height: int, width: int, seed: int) -> None:
    picture = np.random.default_rng(seed).uniform(0, 255, (height, width)).astype(np.float32)
    for fit, side, most in (
        (p.preprocess_digit, 28, 255),
        (p.preprocess_coarse_digit, 8, 16),
        (p.preprocess_garment, 28, 255),
    ):
        fitted = fit(picture)
        assert fitted.shape == (side, side)
        assert fitted.min() >= 0
        assert fitted.max() <= most * 1.001
