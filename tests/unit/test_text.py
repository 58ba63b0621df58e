"""Sizes, durations and names as people read them."""

from __future__ import annotations

import pytest

from fl_shared.system.text import duration_text, limit_text, names_text, shortened, size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (99_940, "99.9 kB"), (99_960, "100 kB"), (213_000, "213 kB"),
     (999_960, "1.0 MB"), (1_700_000, "1.7 MB"), (17_243_200, "17.2 MB"), (2**31, "2.1 GB"), (5e12, "5.0 TB"),
     (5 * 10**15, "5000 TB")],
)  # fmt: skip
def test_sizes(size: float, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "any size"), (300, "300 bytes"), (2**16, "64 KiB"), (2**20, "1 MiB"), (20_000, "20,000 bytes")],
)
def test_limits(size: int | None, text: str) -> None:
    assert limit_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (42.4, "42 s"), (59.7, "1 min"), (61, "1 min 1 s"), (599.9, "10 min"),
     (754, "13 min"), (3599.6, "1 h"), (7500, "2 h 5 min"), (90_000, "1 d 1 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_names() -> None:
    assert names_text([]) == ""
    assert names_text(["a", "b"], 2) == "a, b"
    assert names_text(["a", "b", "c"], 2) == "a, b and 1 more"


def test_long_text_is_cut_off_with_an_ellipsis() -> None:
    assert shortened("12345", 5) == "12345"
    assert shortened("123456", 5) == "1234…"
