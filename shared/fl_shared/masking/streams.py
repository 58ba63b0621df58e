"""Masks from seeds: the key stream of AES-128 in counter mode (NIST SP 800-38A, 6.5), read as little-endian words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fl_shared.tensors.encodings.masked import Words

DELTA_STREAM: Final = 0
TALLIES_STREAM: Final = 1

Mask = tuple[bytes, int]
"""A seed, 16 bytes, and the sign of its stream: 1 or −1."""

_BLOCK: Final = 2**17
"""Bytes of each stream at a time: all streams are added to a block of the words while it is in the cache."""
_ZEROS: Final = bytes(_BLOCK)
_CIPHER_BLOCK: Final = 16


def add_masks(
    words: Words, masks: Sequence[Mask], stream: int, check: Callable[[], None] = lambda: None
) -> None:
    """Adds the masks to ``words``, in place, modulo 2^32 or 2^64.

    ``stream``: which stream of each seed, the index of a section. ``check`` is called for each block of 128 KiB, and
    may raise, in order to end it.
    """
    counter = modes.CTR(stream.to_bytes(8, "big") + bytes(8))
    ciphers = [(Cipher(algorithms.AES128(seed), counter).encryptor(), sign) for seed, sign in masks]
    out = bytearray(_BLOCK + _CIPHER_BLOCK - 1)  # as `update_into` wants it
    mask = np.frombuffer(memoryview(out)[:_BLOCK], words.dtype)
    step = len(mask)
    for start in range(0, len(words), step):
        check()
        block = words[start : start + step]
        for cipher, sign in ciphers:
            cipher.update_into(_ZEROS, out)
            if sign > 0:
                block += mask[: len(block)]
            else:
                block -= mask[: len(block)]
