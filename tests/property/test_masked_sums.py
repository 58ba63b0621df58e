"""Masked sums are exact: for any members, widths and losses with enough members left to open them."""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_shared.masking.shares import mask_seed, pair_secret, shares_manifest
from fl_shared.masking.streams import DELTA_STREAM, TALLIES_STREAM, add_masks
from fl_shared.masking.tallies import TALLIES_MANIFEST
from fl_shared.masking.unmasking import Opened, UnmaskFailed, find_masks
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.encodings.masked import MASKED, WIDTHS
from tests.support.masked_rounds import MaskedRound, fixed_random, keys_of, plan_with

VALUES = 40
quick = settings(deadline=None, max_examples=8)


@quick
@given(data=st.data(), members=st.integers(3, 24), bits=st.sampled_from(WIDTHS), seed=st.integers(0, 2**32))
def test_the_sum_is_exact_whoever_is_lost(data: st.DataObject, members: int, bits: int, seed: int) -> None:
    colluders = data.draw(st.integers(0, members - 2))
    clients = [f"e{index}" for index in range(members)]
    plan = plan_with(clients, colluders, bits=bits, values=VALUES)
    made, rng = MaskedRound(plan), np.random.default_rng(seed)
    order = data.draw(st.permutations(clients))
    here = order[: data.draw(st.integers(plan.least, members))]
    holders = data.draw(st.permutations(clients))[: data.draw(st.integers(plan.threshold, members))]
    most = 2 ** (bits - 2) // members
    values = {client: rng.integers(-most, most, VALUES, endpoint=True) for client in here}
    tallies = {client: rng.integers(0, 2**40, 8) for client in here}
    for client in here:
        made.upload(client, values[client], tallies[client])
    found = find_masks(plan, made.sections, made.opened(holders))
    total, counts = made.sums()
    add_masks(total, found.masks, DELTA_STREAM)
    add_masks(counts, found.masks, TALLIES_STREAM)
    assert MASKED[bits].signed(total).tolist() == np.sum([*values.values()], axis=0).tolist()
    assert MASKED[64].signed(counts).tolist() == np.sum([*tallies.values()], axis=0).tolist()
    assert not found.disputes


@settings(deadline=None, max_examples=20)
@given(data=st.data(), members=st.integers(4, 10))
def test_colluders_who_lie_spoil_no_sum_and_blame_nobody_else(data: st.DataObject, members: int) -> None:
    """They open other shares, or say that they cannot open what honest members have sent them (P18)."""
    clients = [f"e{index}" for index in range(members)]
    colluders = data.draw(st.integers(1, members - 2))
    plan = plan_with(clients, colluders, values=VALUES)
    made = MaskedRound(plan)
    here = data.draw(st.permutations(clients))[: data.draw(st.integers(plan.least, members))]
    for client in here:
        made.upload(client, np.arange(VALUES))
    liars = data.draw(st.permutations(clients))[:colluders]
    opened = made.opened(clients)
    for liar in liars:
        shares = bytearray(opened[liar].shares)
        for place in data.draw(st.sets(st.integers(0, len(shares) - 1), max_size=20)):
            shares[place] ^= data.draw(st.integers(1, 255))
        opened[liar] = Opened(bytes(shares), tuple(data.draw(st.sets(st.sampled_from(here)))))
    blamed: set[str | None]
    try:
        found = find_masks(plan, made.sections, opened)
    except UnmaskFailed as error:
        blamed = {error.client} - {None}
    else:
        blamed = {*found.liars(colluders)}
        total, _ = made.sums()
        add_masks(total, found.masks, DELTA_STREAM)
        assert total.tolist() == [len(here) * value for value in range(VALUES)]
    assert blamed <= {*liars}


@quick
@given(bits=st.sampled_from(WIDTHS), own=st.integers(0, 4), seed=st.integers(0, 2**32))
def test_a_masked_update_is_what_the_protocol_says(bits: int, own: int, seed: int) -> None:
    """A dumb version in Python's integers."""
    plan = plan_with("abcde", bits=bits, values=VALUES)
    client = plan.clients[own]
    integers = np.random.default_rng(seed).integers(-(2**29), 2**29, VALUES)
    made = MaskedRound(plan, fixed_random("x")).upload(client, integers)
    size = 4 if bits == 32 else 8
    expected = [int(one) for one in integers]
    for index, member in enumerate(plan.members):
        pair = pair_secret(plan.digest, client, keys_of(client).mask, member)
        key = fixed_random("x")(16) if index == own else mask_seed(pair)
        stream = Cipher(algorithms.AES128(key), modes.CTR(bytes(16))).encryptor().update(bytes(size * VALUES))
        sign = 1 if index >= own else -1
        for place in range(VALUES):
            expected[place] += sign * int.from_bytes(stream[size * place : size * (place + 1)], "little")
    packed = b"".join((one % 2**bits).to_bytes(bits // 8, "little") for one in expected)
    assert bytes(made.delta) == packed
    body = b"fl-mqtt masked 1\0" + plan.digest + made.shares[: 16 + 5 * 32]
    sections: list[tuple[str, str, str, bytes | memoryview]] = [
        ("delta", f"masked{bits}", plan.manifest, packed),
        ("shares", "raw", shares_manifest(len(made.shares)).digest, made.shares),
        ("tallies", "masked64", TALLIES_MANIFEST.digest, made.tallies),
    ]
    body += bytes.fromhex(content_digest(sections[:1])) + bytes.fromhex(content_digest(sections[2:]))
    assert made.body == hashlib.sha256(body).hexdigest()
    assert made.digest == content_digest(sections)
