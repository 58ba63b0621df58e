"""Gaussian noise from a key, on the grid of the exact sum: the same integers whenever and in whatever blocks.

The key stream of AES-256 in counter mode (NIST SP 800-38A, 6.5) gives uniform numbers, and these two normal values a
pair (Box and Muller 1958): √(−2 ln u) × (cos θ, sin θ), with u of 104 bits, so that tails are smooth up to 12 standard
deviations. They are scaled in float64 and rounded once to integers. x + rint(z) = rint(x + z) for an integer x: what
is released is the continuous mechanism's output, rounded, and attacks on the floats of noise (Mironov 2012; Jin and
others 2022, arXiv:2112.05307) find none.

This holds as far as float64 is finer than the grid. If its grain is g units, an integer is more or less probable than
it should be by up to g of that, as its parity: of so many numbers one in 1/g is a half, which is rounded to even. To
who knows all but one edge, a sum of d values tells up to 2 g √d standard deviations more than it should. With the
deviations of `private_scale_bits`, 2^28 units at most, g is about 2^-25: 0.002 for 10^9 values. With 2^36 it would be
0.05 for 10^7, and with 2^44 more than 10.

A block of 16,384 values is made from 3 × 8,192 little-endian words of 8 bytes of the stream: 52 bits of u, 52 more, and
52 bits of the angle, whose word's lowest bit is a sign. The first half of the block has the cosines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fl_shared.privacy.clipping import MIN_DEVIATION
from fl_shared.tensors.encodings.integers import Int64s

KEY: Final = 32
"""Bytes of a key."""
BLOCK: Final = 16_384
"""Values of a block. Noise begins with a block, and what is made at a time stays in the cache."""
MAX_DEVIATION: Final = 2.0**34
"""What `private_scale_bits` leaves a clip that grows, and more: a deviation above it is a mistake."""

_PAIRS: Final = BLOCK // 2
_BYTES: Final = 3 * 8 * _PAIRS
_ZEROS: Final = bytes(_BYTES)
_CIPHER_BLOCK: Final = 16
_ONE: Final = np.uint64(0x3FF << 52)
"""The bits of 1.0: with 52 random bits below, a float from 1 to 2."""
_SINE: Final = [(-1) ** k * (math.pi / 2) ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(8)]
"""sin(πt/2) = Σ _SINE[k] t^(2k + 1), to 2^-54 for |t| ≤ ½: faster than NumPy's sine, and alike on all machines."""


class _Normals:
    """The standard normal values of a key, a block at a time."""

    def __init__(self, key: bytes, block: int) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        if len(key) != KEY:
            raise ValueError(f"a key of {len(key)} bytes, expected {KEY}")
        counter = block * (_BYTES // _CIPHER_BLOCK)
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(counter.to_bytes(16, "big"))).encryptor()
        self._stream = bytearray(_BYTES + _CIPHER_BLOCK - 1)  # as `update_into` wants it
        self._words = np.frombuffer(self._stream, "<u8", 3 * _PAIRS).reshape(3, _PAIRS)
        self._signs = np.empty(_PAIRS, np.uint64)
        self._sines = np.empty(_PAIRS)

    def write_block(self, out: NDArray[np.float64]) -> None:
        """Writes the next values to ``out``, shape (BLOCK,)."""
        self._cipher.update_into(_ZEROS, self._stream)
        np.left_shift(self._words[2], 63, out=self._signs)
        self._words >>= 12
        self._words |= _ONE
        radii, square, angles = self._words.view("<f8")
        # u = 52 bits + 52 bits × 2^-52 + 2^-105, so never 0.
        radii -= 1.0
        square -= 1 - 2.0**-53
        square *= 2.0**-52
        radii += square
        np.log(radii, out=radii)
        radii *= -8.0
        np.sqrt(radii, out=radii)  # twice the radius
        bits = radii.view(np.uint64)
        bits ^= self._signs
        # Half the angle, within ±π/4: cos θ = 2 (½ − sin²), sin θ = 2 sin √(1 − sin²); the sign has the other half.
        angles -= 1.5
        np.multiply(angles, angles, out=square)
        sines = self._sines
        np.multiply(square, _SINE[-1], out=sines)
        for coefficient in _SINE[-2:0:-1]:
            sines += coefficient
            sines *= square
        sines += _SINE[0]
        sines *= angles
        np.multiply(sines, sines, out=square)
        np.subtract(0.5, square, out=angles)
        np.multiply(angles, radii, out=out[:_PAIRS])
        np.subtract(1.0, square, out=square)
        np.sqrt(square, out=square)
        sines *= square
        np.multiply(sines, radii, out=out[_PAIRS:])


def standard_normal(key: bytes, start: int, count: int) -> NDArray[np.float64]:
    """The values ``start`` to ``start`` + ``count`` of the key's, shape (count,), of mean 0 and variance 1.

    ``start`` is a multiple of `BLOCK`. Raises ``ValueError`` otherwise, or for a key of another length.
    """
    normals = _Normals(key, _first_block(start))
    values = np.empty(-(-count // BLOCK) * BLOCK)
    for first in range(0, count, BLOCK):
        normals.write_block(values[first : first + BLOCK])
    return values[:count]


def noise(parts: Sequence[tuple[bytes, float]], start: int, count: int) -> Int64s:
    """The integers nearest to Σ deviation × `standard_normal` (key), from value ``start`` on, shape (count,).

    ``parts``: keys and standard deviations, in units of the grid, which may be negative. ``start`` is a multiple of
    `BLOCK`. Raises ``ValueError`` otherwise, or for a key of another length, or if the deviation of the sum is below
    2^8 or above 2^34.
    """
    deviation = math.hypot(*(one for _, one in parts))
    if not MIN_DEVIATION <= deviation <= MAX_DEVIATION:
        raise ValueError(f"a deviation of {deviation:.4g} units of the grid, expected 2^8 to 2^34")
    block = _first_block(start)
    keys = [(_Normals(key, block), part) for key, part in parts]
    integers = np.empty(count, np.int64)
    values, total = np.empty(BLOCK), np.empty(BLOCK)
    for first in range(0, count, BLOCK):
        for number, (normals, part) in enumerate(keys):
            out = values if number else total
            normals.write_block(out)
            out *= part
            if number:
                total += values
        np.rint(total, out=total)
        integers[first : first + BLOCK] = total[: count - first]
    return integers


def _first_block(start: int) -> int:
    if start < 0 or start % BLOCK:
        raise ValueError(f"start: {start}, expected a multiple of {BLOCK}")
    return start // BLOCK
