"""The seeded permutation."""

from __future__ import annotations

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fl_aggregator.round.selecting import permutation

names = st.lists(st.text("abcdefXYZ0189_-", min_size=1, max_size=6), unique=True, max_size=30)
seeds = st.integers(0, 2**53 - 1)
rounds = st.integers(0, 10**6)


def test_the_order_is_that_of_the_documented_hash() -> None:
    """Ascending by SHA-256 of ``seed NUL round NUL client``: it must never change."""
    clients = [str(n) for n in range(8)]
    expected = sorted(clients, key=lambda c: hashlib.sha256(b"7\x003\x00" + c.encode()).hexdigest())
    assert permutation(clients, 7, 3) == tuple(expected)
    assert permutation(clients, 0, 1) == ("3", "1", "6", "2", "0", "7", "4", "5")


@given(names, seeds, rounds, st.randoms())
def test_it_is_a_permutation_whatever_the_order_of_its_input(
    clients: list[str], seed: int, number: int, shuffle: object
) -> None:
    order = permutation(clients, seed, number)
    assert sorted(order) == sorted(clients)
    assert permutation(reversed(clients), seed, number) == order


@given(names, seeds, rounds)
def test_a_client_that_leaves_does_not_change_the_order_of_the_others(
    clients: list[str], seed: int, number: int
) -> None:
    order = permutation(clients, seed, number)
    for gone in clients[:3]:
        left = [client for client in clients if client != gone]
        assert permutation(left, seed, number) == tuple(client for client in order if client != gone)


def test_everyone_is_drawn_about_as_often_in_many_rounds() -> None:
    """10 of 20 in 2,000 rounds: 1,000 times each, with a standard deviation of 22."""
    clients = [str(n) for n in range(20)]
    drawn = Counter(client for number in range(2000) for client in permutation(clients, 0, number)[:10])
    assert all(abs(times - 1000) < 5 * 22.4 for times in drawn.values())
    assert len(drawn) == 20


def test_seeds_and_rounds_make_different_orders() -> None:
    clients = [str(n) for n in range(10)]
    orders = {permutation(clients, seed, number) for seed in range(20) for number in range(20)}
    assert len(orders) == 400
