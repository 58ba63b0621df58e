"""Masks are the key stream of AES-128 in counter mode."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives import ciphers
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fl_shared.masking.streams import add_masks

SEEDS = (bytes(range(16)), bytes(range(16, 32)))


def key_stream(seed: bytes, counter: bytes, size: int) -> bytes:
    return Cipher(algorithms.AES128(seed), modes.CTR(counter)).encryptor().update(bytes(size))


def test_nist_sp_800_38a_f_5_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """CTR-AES128.Encrypt: its ciphertext is the plaintext under our mask, if the counter is theirs."""
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    cipher = bytes.fromhex(
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )
    theirs = modes.CTR(counter)
    monkeypatch.setattr(ciphers, "modes", SimpleNamespace(CTR=lambda _: theirs))
    words = np.zeros(8, "<u8")
    add_masks(words, [(key, 1)], 0)
    assert (np.frombuffer(plain, "<u8") ^ words).tobytes() == cipher


@pytest.mark.parametrize(("dtype", "stream"), [("<u4", 0), ("<u8", 0), ("<u8", 1)])
@pytest.mark.parametrize("values", [0, 1, 7, 16_384, 16_385, 40_000, 70_001])
def test_streams_are_added_and_subtracted_over_all_blocks(dtype: str, stream: int, values: int) -> None:
    counter = stream.to_bytes(8, "big") + bytes(8)
    first, second = (
        np.frombuffer(key_stream(seed, counter, values * np.dtype(dtype).itemsize), dtype) for seed in SEEDS
    )
    words = np.arange(values).astype(dtype)
    expected = words + first - second
    add_masks(words, [(SEEDS[0], 1), (SEEDS[1], -1)], stream)
    assert (words == expected).all()


def test_streams_of_two_sections_are_different() -> None:
    words = np.zeros((2, 100), "<u8")
    for stream in (0, 1):
        add_masks(words[stream], [(SEEDS[0], 1)], stream)
    assert not (words[0] == words[1]).any()


def test_it_can_be_ended_between_blocks() -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        add_masks(np.zeros(10**6, "<u8"), [(SEEDS[0], 1)], 0, check)
    assert calls == 3
