"""Shares over GF(2^8): any threshold of them join, and fewer say nothing."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_shared.masking.shamir import INVERSE, PRODUCT, join, split


def bitwise_product(a: int, b: int) -> int:
    """FIPS 197, section 4.2."""
    product = 0
    for bit in range(8):
        product ^= (a << bit) if b >> bit & 1 else 0
    for bit in range(14, 7, -1):
        product ^= (0x11B << (bit - 8)) if product >> bit & 1 else 0
    return product


def test_the_table_has_the_products_of_the_field() -> None:
    expected = [[bitwise_product(a, b) for b in range(256)] for a in range(256)]
    assert PRODUCT.tolist() == expected
    assert PRODUCT[0x57, 0x83] == 0xC1  # the example of FIPS 197
    assert all(PRODUCT[a, INVERSE[a]] == 1 for a in range(1, 256))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), holders=st.integers(2, 24))
def test_10_7_any_threshold_of_shares_join(data: st.DataObject, holders: int) -> None:
    threshold = data.draw(st.integers(2, holders))
    secrets = np.frombuffer(data.draw(st.binary(min_size=32, max_size=32)), np.uint8).reshape(2, 16)
    shares = split(secrets, threshold, holders, np.random.default_rng(1).bytes)
    chosen = data.draw(st.permutations(range(holders)))[: data.draw(st.integers(threshold, holders))]
    assert (join({index: shares[index] for index in chosen}) == secrets).all()


def test_one_share_of_two_is_any_byte_once_whatever_the_secret() -> None:
    """By exact count over all coefficients, so the shares of two secrets cannot be told apart."""
    coefficients = bytes(range(256))
    for secret, holder in itertools.product((0, 1, 0x53, 255), range(3)):
        secrets = np.full(256, secret, np.uint8)
        shares = split(secrets, 2, 3, lambda size: coefficients[:size])
        assert sorted(shares[holder].tolist()) == list(range(256))


@pytest.mark.parametrize("secret", [0, 0xA7])
def test_one_share_less_than_the_threshold_is_uniform(secret: int) -> None:
    """χ² over 10^5 splits of one byte with a threshold of 3: each share, and the join of two."""
    count = 100_000
    shares = split(np.full(count, secret, np.uint8), 3, 5, np.random.default_rng(7).bytes)
    for pair in ((0, 1), (1, 4), (2, 3)):
        joined = join({index: shares[index] for index in pair})
        for seen in (shares[pair[0]], shares[pair[1]], joined):
            counts = np.bincount(seen, minlength=256)
            chi_squared = float(((counts - count / 256) ** 2 / (count / 256)).sum())
            assert 150 < chi_squared < 380  # 255 degrees of freedom: beyond 4 σ on either side
        both = Counter(zip((shares[pair[0]] >> 4).tolist(), (shares[pair[1]] >> 4).tolist(), strict=True))
        assert len(both) == 256
        assert max(both.values()) < 1.3 * count / 256


def test_fewer_shares_join_to_something_else() -> None:
    secrets = np.arange(16, dtype=np.uint8)
    shares = split(secrets, 3, 5, np.random.default_rng(1).bytes)
    assert (join({0: shares[0], 1: shares[1]}) != secrets).any()
