"""What keeps a flood small: room, notices, entries and log lines."""

from __future__ import annotations

import pytest

from fl_shared.system.flood_control import Capacity, Interval, RecentlyUsed, is_worth_logging


def test_room_is_bounded_in_bytes_and_comes_back() -> None:
    room = Capacity(1000)
    assert [room.take(400) for _ in range(3)] == [True, True, False]
    assert room.take(200)
    assert not room.take(1)
    room.release(400)
    assert room.take(400)


def test_room_is_bounded_in_items() -> None:
    room = Capacity(1000, most_items=2)
    assert [room.take(0) for _ in range(3)] == [True, True, False]
    room.release(0)
    assert room.take(0)


def test_one_item_of_any_size_has_room() -> None:
    room = Capacity(10)
    assert room.take(10**9)
    assert not room.take(0)
    room.release(10**9)
    assert room.take(10)


def test_an_interval_is_due_at_first_and_then_once_in_its_time() -> None:
    interval = Interval(10.0)
    assert [interval.is_due(now) for now in (3.0, 12.9, 13.0, 22.9, 40.0, 49.0)] == [
        True, False, True, False, True, False,
    ]  # fmt: skip


def test_the_least_recently_used_value_is_forgotten() -> None:
    values: RecentlyUsed[str, list[str]] = RecentlyUsed(2)
    first, second = values.use("a", list), values.use("b", list)
    assert values.use("a", list) is first
    assert values.get("b") is second, "which is no use"
    values.use("c", list)
    assert len(values) == 2
    assert values.get("b") is None
    assert values.get("a") is first


@pytest.mark.parametrize(
    ("before", "now", "worth"),
    [
        (0, 1, True),
        (1, 2, False),
        (8, 9, False),
        (9, 10, True),
        (10, 11, False),
        (0, 7, True),
        (7, 300, True),
        (0, 0, False),
    ],
)
def test_a_log_line_at_each_power_of_ten(before: int, now: int, worth: bool) -> None:
    assert is_worth_logging(before, now) is worth
