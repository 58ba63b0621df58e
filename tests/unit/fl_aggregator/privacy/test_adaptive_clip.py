"""The clip that follows the median of the updates' norms, and the noisy means of a release."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from fl_aggregator.privacy.adaptive_clip import ROOM, next_clip
from fl_aggregator.privacy.bounded_mean import (
    PLACES,
    deviation_of,
    model_multiplier,
    noisy_mean,
    on_grid,
)
from fl_aggregator.privacy.plan import PrivacyPlan, make_plan
from fl_shared.privacy.clipping import clip_factor, private_scale_bits
from fl_shared.privacy.gaussian_noise import noise

KEYS = [bytes([n % 256, n // 256]) * 16 for n in range(400)]


def plan(**changes: object) -> PrivacyPlan:
    usual: dict[str, object] = {
        "mechanism": "central", "against": "wire", "clip": 1.0, "adaptive": True, "noise": 0.8, "delta": 1e-5,
        "epsilon": None, "apart": 1, "times": None, "bands": 1, "releases": 200, "insecure": False, "expected": 100,
    }  # fmt: skip
    return make_plan(**{**usual, **changes})  # type: ignore[arg-type]


def test_it_converges_to_the_median_of_the_norms() -> None:
    """From 50 times too small, and from 50 times too great, within 10 % over the last 100 of 200 rounds."""
    generator = np.random.default_rng(5)
    for first in (0.02, 50.0):
        clip, clips, deviation = first, [], plan().mean_deviation
        for number in range(200):
            norms = generator.lognormal(0.0, 0.4, 100)  # their median is 1
            within = int((norms <= clip).sum())
            total = within * on_grid(1.0) + (100 - within) * on_grid(0.0)
            clip = next_clip(
                clip, first, noisy_mean(total, 100, deviation, KEYS[number], "within clip"), 1000, 30
            )
            clips.append(clip)
        assert statistics.median(clips[100:]) == pytest.approx(1.0, rel=0.1)
        assert all(0.8 < one < 1.25 for one in clips[100:])


def test_it_stays_within_its_room() -> None:
    up = down = 2.0
    for _ in range(200):
        up, down = next_clip(up, 2.0, -3.0, 1000, 30), next_clip(down, 2.0, 4.0, 1000, 30)
    assert (up, down) == (2.0 * ROOM, 2.0 / ROOM)


@pytest.mark.parametrize("multiplier", [0.5, 10.0, 1000.0])
def test_it_stays_so_long_that_rounding_leaves_something(multiplier: float) -> None:
    values = 10**8
    places, clip = private_scale_bits(2.0, multiplier, 100, room=ROOM), 2.0
    for _ in range(200):
        clip = next_clip(clip, 2.0, 4.0, values, places)
        assert clip_factor(1e9, values, clip, places) >= 0.49 * clip / 1e9
    assert clip >= 2.0 / ROOM


@pytest.mark.parametrize("slots", [1, 20, 10_000, 10**6])
@pytest.mark.parametrize("multiplier", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("first", [1e-6, 0.3, 1e6])
def test_the_grid_holds_whatever_the_clip_becomes(slots: int, multiplier: float, first: float) -> None:
    places = private_scale_bits(first, multiplier, slots, room=ROOM)
    for clip in (first / ROOM, first * ROOM):
        assert 2.0**8 <= multiplier * clip * 2.0**places <= 2.0**32
        assert clip * (slots + 12 * multiplier) * 2.0**places < 2.0**63


def test_a_grid_without_room_for_the_clip_is_refused() -> None:
    assert private_scale_bits(1.0, 0.01, 10**12) == 22
    with pytest.raises(ValueError, match="expected at least 256"):
        private_scale_bits(1.0, 0.01, 10**12, room=ROOM)


def test_all_that_a_release_tells_has_the_noise_that_is_accounted() -> None:
    for changes in ({}, {"accuracy": True}, {"accuracy": True, "adaptive": False}):
        made = plan(**changes)
        means = made.adaptive + made.accuracy
        # Each in units of what an edge adds to it at most: a clip, or ½.
        together = made.model_noise**-2 + means * (made.mean_deviation / 0.5) ** -2
        assert together**-0.5 == pytest.approx(made.noise, rel=1e-12)
        assert made.noise < made.model_noise < 1.25 * made.noise
        assert made.deviations == (made.model_noise,)
    fixed = plan(adaptive=False)
    assert fixed.model_noise == fixed.noise
    assert model_multiplier(0.8, deviation_of(0.8, 4), 1) < 1.101 * 0.8


def test_an_edge_adds_half_at_most() -> None:
    assert {abs(on_grid(number)) for number in (0.0, 1.0)} == {2 ** (PLACES - 1)}
    assert on_grid(0.5) == 0
    assert max(abs(on_grid(number)) for number in np.linspace(0, 1, 1001)) == 2 ** (PLACES - 1)


def test_the_error_of_a_noisy_mean_is_its_deviation_over_the_number_of_edges() -> None:
    numbers = [0.25, 0.5, 1.0, 0.75]
    total, deviation = sum(map(on_grid, numbers)), 3.0
    found = [noisy_mean(total, 4, deviation, key, "accuracy") for key in KEYS]
    errors = [one - 0.625 for one in found]
    assert abs(statistics.fmean(errors)) < 4 * deviation / 4 / math.sqrt(len(KEYS))
    assert statistics.pstdev(errors) == pytest.approx(deviation / 4, rel=4 / math.sqrt(2 * len(KEYS)))


def test_no_two_means_of_a_release_and_not_its_model_have_the_same_noise() -> None:
    first, second = (noisy_mean(0, 1, 2.0, KEYS[1], name) for name in ("accuracy", "within clip"))
    model = 0.5 + noise([(KEYS[1], 2.0 * 2**PLACES)], 0, 1)[0] / 2**PLACES
    assert len({first, second, model}) == 3
    assert noisy_mean(0, 1, 2.0, KEYS[1], "accuracy") == first
