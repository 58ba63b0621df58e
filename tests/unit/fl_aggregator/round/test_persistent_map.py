"""A map that is never changed in place has the same entries in the same order, however it came about."""

from __future__ import annotations

from fl_aggregator.round.persistent_map import PersistentMap


def test_its_views_agree_with_its_names() -> None:
    made = PersistentMap((str(number), number) for number in range(600))
    assert list(made.items()) == [(name, made[name]) for name in made]
    assert list(made.values()) == [made[name] for name in made]
    assert len(made) == len(made.items()) == len(made.values()) == 600
    assert dict(made) == {str(number): number for number in range(600)}


def test_maps_do_not_share_what_one_of_them_changes() -> None:
    empty = PersistentMap[int]()
    one = empty.with_value("a", 1)
    assert (dict(empty), dict(one), dict(one.without("a"))) == ({}, {"a": 1}, {})
    assert PersistentMap({"a": 1}) == one
    assert empty == PersistentMap[int]() == one.without("a")
