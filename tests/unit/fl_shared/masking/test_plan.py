"""A plan that does not keep what masked sums promise is none."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from fl_shared.masking.plan import threshold_of
from tests.support.masked_rounds import keys_of, plan_with

CLIENTS = ("a", "b", "c", "d", "e")
OTHER: dict[str, Any] = {
    "run": "s",
    "round": 2,
    "task": "other",
    "base": "c" * 64,
    "manifest": "c" * 64,
    "values": 9,
    "training": {"lr": 0.050000000000000003 * 2},
    "correction": {},
    "fold": {"scale_bits": 21},
    "privacy": {},
    "bits": 32,
    "least": 5,
    "members": (keys_of("x").member("a"), *(keys_of(name).member(name) for name in CLIENTS[1:])),
}


def test_two_sets_that_reach_the_threshold_have_an_honest_member_in_common() -> None:
    for members, colluders in itertools.product(range(2, 129), range(43)):
        if colluders + 2 <= members:
            threshold = threshold_of(members, colluders)
            assert 2 * threshold - members >= colluders + 1
            assert threshold - colluders >= 2
            assert threshold <= members


@pytest.mark.parametrize("name", OTHER)
def test_all_of_the_plan_is_in_its_digest(name: str) -> None:
    plan = plan_with(CLIENTS)
    assert replace(plan, **{name: OTHER[name]}).digest != plan.digest


def test_the_order_of_settings_is_not_in_the_digest() -> None:
    first, second = {"lr": 0.1, "epochs": 2}, {"epochs": 2, "lr": 0.1}
    assert plan_with(CLIENTS, training=first).digest == plan_with(CLIENTS, training=second).digest


def test_the_closing_depends_on_clients_and_bodies_and_not_on_their_order() -> None:
    plan = plan_with(CLIENTS)
    closing = plan.closing({"a": "1" * 64, "b": "2" * 64})
    assert plan.closing({"b": "2" * 64, "a": "1" * 64}) == closing
    assert plan.closing({"a": "2" * 64, "b": "1" * 64}) != closing
    assert plan.closing({"a": "1" * 64}) != closing
    assert plan_with(CLIENTS, round=2).closing({"a": "1" * 64, "b": "2" * 64}) != closing


def test_members_have_places() -> None:
    plan = plan_with(CLIENTS)
    assert [plan.index(client) for client in plan.clients] == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        plan.index("f")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"threshold": 3}, "threshold: 3, expected 4 for 5 members and 1 colluders"),
        ({"threshold": 5}, "threshold: 5, expected 4"),
        ({"least": 3}, "least: 3, expected 4 to 5"),
        ({"least": 6}, "least: 6, expected 4 to 5"),
        ({"bits": 16}, "bits: 16, expected one of 32, 40, 48, 64"),
        ({"colluders": 4}, "members: 5 with 4 colluders, expected 6 to 128"),
        ({"colluders": -1}, "members: 5 with -1 colluders, expected 2 to 128"),
        (
            {"members": tuple(keys_of(name).member(name) for name in "bacde")},
            "unique clients in ascending order",
        ),
        (
            {"members": tuple(keys_of(name).member("a") for name in CLIENTS)},
            "unique clients in ascending order",
        ),
        ({"members": tuple(keys_of("x").member(name) for name in CLIENTS)}, "two have the same key"),
    ],
)
def test_a_plan_that_opens_too_much_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(plan_with(CLIENTS), **wrong)
