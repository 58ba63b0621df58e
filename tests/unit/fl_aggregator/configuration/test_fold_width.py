"""The width of the exact fold, and which caps would make a masked update shorter."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fl_aggregator.aggregation.strategies.registry import resolved
from fl_aggregator.configuration.fold_width import shorter_text
from fl_aggregator.configuration.settings import Settings, parse_settings
from fl_shared.errors import UserError
from fl_shared.privacy.distributed_noise import noise_of_edge

TIGHT: dict[str, Any] = {"max_examples": 1000, "max_delta": 10.0}


@pytest.mark.parametrize(
    ("settings", "plain", "masked"),
    [
        ({}, 64, 64),
        (TIGHT, 64, 40),
        ({"max_examples": 10_000, "max_delta": 10.0}, 64, 48),
        ({"max_examples": 10, "max_delta": 1.0, "clients": 5}, 64, 32),
        (TIGHT | {"fold_bits": "48"}, 48, 48),
        (TIGHT | {"fold_bits": "64"}, 64, 64),
    ],
)
def test_auto_is_the_smallest_width_that_leaves_twenty_places(
    settings: dict[str, Any], plain: int, masked: int
) -> None:
    of_plain, of_masked = Settings(**settings), Settings(**settings, masked=True)
    assert of_plain.fold_width == of_plain.fold_settings.bits == plain
    assert of_masked.fold_width == of_masked.fold_settings.bits == masked


def test_a_width_takes_places_away() -> None:
    wide, narrow = Settings(**TIGHT), Settings(**TIGHT, fold_bits="40")
    assert wide.scale_bits - narrow.scale_bits == 24
    assert narrow.fold_settings.scale_bits == narrow.scale_bits == 21


def test_a_width_that_leaves_too_few_places_is_refused() -> None:
    with pytest.raises(UserError, match=r"leaves 8 binary places .*lower one of them, or say --fold-bits 64"):
        parse_settings(fold_bits="40")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "is 2 × as long as a plain one; with --max-examples 1000000 --max-delta 1 it would be 1.5 ×"),
        (TIGHT, "is 1.25 × as long as a plain one; with --max-examples 100 --max-delta 1 it would be 1 ×"),
        (
            TIGHT | {"fold_bits": "64"},
            "is 2 × as long as a plain one; with --max-examples 1000 --max-delta 10",
        ),
    ],
)
def test_it_says_which_caps_would_make_updates_shorter(settings: dict[str, Any], said: str) -> None:
    text = shorter_text(Settings(**settings, masked=True))
    assert text is not None
    assert said in text


@pytest.mark.parametrize(
    ("settings", "width"),
    [
        ({"max_examples": 10, "max_delta": 1.0}, 32),
        ({"max_examples": 100, "max_delta": 1.0, "clients": 128, "per_round": 128}, 40),
    ],
)
def test_nothing_is_said_if_no_caps_would(settings: dict[str, Any], width: int) -> None:
    given = Settings(**settings, masked=True)
    assert given.fold_width == width
    assert shorter_text(given) is None
    assert shorter_text(Settings()) is None


@pytest.mark.parametrize(
    ("edges", "bits", "width", "places", "part"),
    [
        (10, "auto", 32, 24, 24),
        (10, "40", 40, 26, 26),
        (10, "48", 48, 26, 26),
        (10, "64", 64, 26, 26),
        (128, "auto", 32, 22, 20),
    ],
)
def test_32_bits_have_room_for_the_noise_of_edges(
    edges: int, bits: str, width: int, places: int, part: float
) -> None:
    """``part``: the deviation of one edge's noise, as a power of two: the figures of docs/differential-privacy.md."""
    options: dict[str, Any] = {"dp": "distributed", "dp_clip": "1", "dp_noise": 2.0, "fold_bits": bits}
    settings = resolved(Settings(clients=edges, per_round=edges, masked=True, **options))
    plan = settings.privacy
    assert plan is not None
    assert (settings.fold_width, settings.scale_bits) == (width, places)
    of_edge = noise_of_edge(plan.noise, plan.least, plan.colluders) * plan.clip * 2.0**places
    assert math.log2(of_edge) == pytest.approx(part, abs=0.3)
    assert shorter_text(settings) is None
