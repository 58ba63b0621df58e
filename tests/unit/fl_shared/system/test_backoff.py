"""Waits grow by doubling up to a bound, and jitter only shortens them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.system.backoff import backoff


def test_waits_double_up_to_the_bound() -> None:
    assert [backoff(attempt, 0.5, 5.0) for attempt in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_any_number_of_attempts_is_possible() -> None:
    assert backoff(10**6, 0.1, 5.0) == 5.0


@pytest.mark.parametrize(("jitter", "wait"), [(0.0, 4.0), (0.25, 3.0), (0.5, 2.0), (1.0, 0.0)])
def test_jitter_takes_its_share_of_the_wait(jitter: float, wait: float) -> None:
    assert backoff(2, 1.0, 30.0, jitter) == wait


@given(st.integers(0, 2000), st.floats(0.001, 10.0), st.floats(10.0, 100.0), st.floats(0.0, 1.0))
def test_a_wait_is_never_negative_nor_above_the_bound(
    attempt: int, first: float, most: float, jitter: float
) -> None:
    assert 0.0 <= backoff(attempt, first, most, jitter) <= most
