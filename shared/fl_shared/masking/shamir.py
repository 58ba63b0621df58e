"""Shamir's shares (1979) over GF(2^8), byte by byte; the field is that of AES, modulo x^8 + x^4 + x^3 + x + 1.

The secret is the constant term of a polynomial of degree threshold − 1. The holder with index u has its value at u + 1.
So there are at most 255 holders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def _tables() -> tuple[Bytes, Bytes]:
    powers, power = [], 1
    for _ in range(255):
        powers.append(power)
        power ^= power << 1  # times 3, which generates the field
        power ^= 0x11B if power & 0x100 else 0
    logarithms = np.argsort(powers)  # of 1 to 255
    product, inverse = np.zeros((256, 256), np.uint8), np.zeros(256, np.uint8)
    product[1:, 1:] = np.array(powers)[np.add.outer(logarithms, logarithms) % 255]
    inverse[1:] = np.array(powers)[-logarithms % 255]
    return product, inverse


PRODUCT, INVERSE = _tables()
"""The products of all elements, shape (256, 256), and the inverses of all but 0."""


def split(secrets: Bytes, threshold: int, holders: int, random: Callable[[int], bytes]) -> Bytes:
    """The shares of ``secrets``, of any shape: shape (holders, *secrets.shape).

    ``random`` returns so many bytes from a cryptographic source: the coefficients, those of degree 1 first.
    """
    coefficients = np.frombuffer(random((threshold - 1) * secrets.size), np.uint8)
    coefficients = coefficients.reshape(threshold - 1, *secrets.shape)
    shares = np.zeros((holders, *secrets.shape), np.uint8)
    for holder in range(holders):
        times_x = PRODUCT[holder + 1]
        value = shares[holder]
        for coefficient in coefficients[::-1]:  # Horner
            value[...] = times_x[value ^ coefficient]
        value ^= secrets
    return shares


@lru_cache(64)
def join_weights(holders: tuple[int, ...]) -> Bytes:
    """Lagrange's weights at 0 of these holders, by index: Π x_v / (x_v − x_u), where − is ⊕."""
    weights = []
    for u in holders:
        weight = 1
        for v in holders:
            if v != u:
                weight = int(PRODUCT[weight, PRODUCT[v + 1, INVERSE[(v + 1) ^ (u + 1)]]])
        weights.append(weight)
    return np.array(weights, np.uint8)


def join(shares: Mapping[int, Bytes]) -> Bytes:
    """The secrets, from the shares of ``threshold`` holders or more, by index; all of one shape.

    Fewer shares, or wrong ones, give other bytes.
    """
    secrets = np.zeros_like(next(iter(shares.values())))
    for weight, share in zip(join_weights(tuple(shares)), shares.values(), strict=True):
        secrets ^= PRODUCT[weight][share]
    return secrets
