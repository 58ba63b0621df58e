"""The options of private runs, and the plan that follows from them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_aggregator.aggregation.strategies.registry import resolved
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.privacy.accounting import spent
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_shared.errors import UserError
from fl_shared.privacy.gaussian_mechanism import epsilon_of

PRIVATE: dict[str, Any] = {"dp": "central", "dp_clip": "0.5"}


def plan(**changes: Any) -> PrivacyPlan:
    found = resolved(Settings.model_validate({**PRIVATE, **changes})).privacy
    assert found is not None
    return found


def test_the_noise_is_what_the_budget_needs() -> None:
    found = plan(clients=1000, per_round=100, rounds=100, dp_epsilon=2.0, dp_bands="1", dp_apart="10")
    assert found.times == 10
    assert found.delta == 1e-5
    assert found.planned_epsilon == pytest.approx(2.0, rel=1e-9)
    assert found.noise == pytest.approx(6.3, abs=0.02)


def test_correlated_noise_is_as_private_and_moves_the_model_less() -> None:
    found = plan(clients=1000, per_round=100, rounds=100, dp_epsilon=2.0, dp_apart="10")
    assert found.bands == 4
    assert found.gamma > 0
    assert found.planned_epsilon == pytest.approx(2.0, rel=1e-9)


def test_the_defaults_follow_from_the_run() -> None:
    found = plan(clients=100_000, per_round=100, over_select=10, rounds=50, dp_noise=1.0)
    assert found.delta == pytest.approx(100_000**-1.1)
    assert found.apart == math.floor(0.8 * 100_000 / 110)
    assert found.times == 1
    assert plan(clients=20, per_round=20, rounds=5, dp_noise=1.0).apart == 1
    assert plan(clients=20, per_round=20, rounds=5, dp_noise=1.0).bands == 1, "correlated noise does not help"


def test_with_a_budget_and_a_multiplier_an_edge_contributes_as_often_as_both_allow() -> None:
    found = plan(clients=20, rounds=100, dp_apart="1", dp_epsilon=2.0, dp_noise=6.3, dp_bands="1")
    assert epsilon_of(math.sqrt(found.times) / 6.3, found.delta) <= 2.0
    assert epsilon_of(math.sqrt(found.times + 1) / 6.3, found.delta) > 2.0


def test_a_long_run_is_planned_at_once() -> None:
    """Nothing is computed for each of a million versions."""
    assert plan(clients=20, rounds=1_000_000, dp_noise=300.0, dp_epsilon=8.0).bands == 1


@settings(max_examples=60, deadline=None)
@given(
    releases=st.integers(1, 40),
    apart=st.integers(1, 8),
    bands=st.integers(1, 4),
    choose=st.lists(st.booleans(), min_size=40, max_size=40),
)
def test_what_is_spent_is_never_more_than_was_planned(
    releases: int, apart: int, bands: int, choose: list[bool]
) -> None:
    """Whenever an edge contributes, as long as it rests in between; and it never falls."""
    bands = min(bands, releases)
    found = plan(
        clients=50, per_round=10, rounds=releases, dp_apart=str(apart), dp_bands=str(bands), dp_noise=2.0
    )
    taken: list[int] = []
    said = []
    for release in range(1, releases + 1):
        if choose[release - 1] and len(taken) < found.times and (not taken or release - taken[-1] >= apart):
            taken.append(release)
        said.append(spent(found, {"7": taken} if taken else {}, [2.0] * release).epsilon)
    assert all(later >= earlier for earlier, later in itertools.pairwise(said))
    assert said[-1] <= found.planned_epsilon * (1 + 1e-9)


@pytest.mark.parametrize(
    ("changes", "certified", "required"),
    [
        ({}, True, False),
        ({"require_sealed": True}, False, True),
        ({**PRIVATE, "dp_noise": 1.0}, True, True),
        ({**PRIVATE, "dp_noise": 1.0}, False, False),
        ({"masked": True}, True, True),
    ],
)
def test_with_kits_what_noise_or_masks_are_to_hide_is_sealed(
    changes: dict[str, Any], certified: bool, required: bool
) -> None:
    """D12 in docs/differential-privacy.md."""
    assert Settings.model_validate(changes).sealing_required(certified=certified) == required


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"dp_bands": "11", "dp_noise": 1.0}, "dp_bands: 11 must not exceed --rounds"),
        ({"dp_bands": "2", "dp_noise": 1.0, "rounds": 20_000}, "runs of at most 10000 versions"),
        ({"dp_clip": "0", "dp_noise": 1.0}, "expected a number above 0"),
        ({"dp_clip": "wide", "dp_noise": 1.0}, "expected a number above 0"),
        ({"dp_apart": "0", "dp_noise": 1.0}, "expected auto, or a number from 1"),
        ({"masked": True, "dp_noise": 1.0}, "the aggregator cannot clip what it cannot see"),
    ],
)
def test_what_cannot_be_kept_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises((UserError, ValueError), match=text):
        plan(**changes)
