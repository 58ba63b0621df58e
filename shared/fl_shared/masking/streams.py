"""Masks from seeds: the key stream of AES-128 in counter mode (NIST SP 800-38A, 6.5), read as little-endian words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from fl_shared.tensors.encodings.masked import Words

DELTA_STREAM: Final = 0
TALLIES_STREAM: Final = 1

Mask = tuple[bytes, int]
"""A seed, 16 bytes, and the sign of its stream: 1 or −1."""

_BLOCK: Final = 2**17
"""Bytes of each stream at a time: all streams are added to a block of the words while it is in the cache."""
_ZEROS: Final = bytes(_BLOCK)
_CIPHER_BLOCK: Final = 16


class MaskStreams:
    """The streams of some masks, which are added to one block of words after the other, modulo 2^32 or 2^64.

    ``stream``: which stream of each seed, the index of a section. ``dtype``: of the words.
    """

    def __init__(self, masks: Sequence[Mask], stream: int, dtype: np.dtype[Any]) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        counter = modes.CTR(stream.to_bytes(8, "big") + bytes(8))
        self._ciphers = [(Cipher(algorithms.AES128(seed), counter).encryptor(), sign) for seed, sign in masks]
        self._out = bytearray(_BLOCK + _CIPHER_BLOCK - 1)  # as `update_into` wants it
        self._mask = np.frombuffer(memoryview(self._out)[:_BLOCK], dtype)
        self.block = len(self._mask)
        """The words of each block but the last, which may be shorter."""

    def add_to(self, block: Words) -> None:
        """Adds the next words of each stream to ``block``, in place."""
        mask = self._mask[: len(block)]
        for cipher, sign in self._ciphers:
            cipher.update_into(_ZEROS, self._out)
            if sign > 0:
                block += mask
            else:
                block -= mask


def add_masks(
    words: Words, masks: Sequence[Mask], stream: int, check: Callable[[], None] = lambda: None
) -> None:
    """Adds the masks to ``words``, in place. ``check`` is called for each block, and may raise, in order to end it."""
    streams = MaskStreams(masks, stream, words.dtype)
    for start in range(0, len(words), streams.block):
        check()
        streams.add_to(words[start : start + streams.block])
