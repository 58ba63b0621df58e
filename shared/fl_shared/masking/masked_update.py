"""What an edge makes of the integers of its update: words under masks, and the shares of the masks' seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fl_shared.masking.plan import Plan
from fl_shared.masking.run_keys import RunKeys
from fl_shared.masking.shamir import split
from fl_shared.masking.shares import (
    SALT,
    body_of,
    commitment,
    mask_seed,
    pair_secret,
    seal_package,
    share_key,
)
from fl_shared.masking.streams import DELTA_STREAM, TALLIES_STREAM, Mask, add_masks
from fl_shared.masking.tallies import TALLIES, TALLY_BITS
from fl_shared.protocol.kinds.masked import SEED
from fl_shared.tensors import sections
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.masked import MASKED, Words
from fl_shared.tensors.sections import DELTA


@dataclass(frozen=True, slots=True)
class MaskedSections:
    """The three sections of a masked update, and its body, hex."""

    delta: memoryview = field(repr=False)
    tallies: memoryview = field(repr=False)
    shares: bytes = field(repr=False)
    body: str


def mask_update(
    plan: Plan,
    client: str,
    keys: RunKeys,
    integers: Int64s,
    tallies: Int64s,
    random: Callable[[int], bytes],
    check: Callable[[], None] = lambda: None,
) -> MaskedSections:
    """Masks an update of ``client``: ``integers``, shape (plan.values,), are changed in place; ``tallies``, shape (8,).

    ``random`` returns so many bytes from a cryptographic source. ``check`` is called for each block, and may raise, in
    order to end it. The seeds are forgotten. Raises ``ValueError`` for another shape, ``KeyError`` for no member.
    """
    if integers.shape != (plan.values,) or tallies.shape != (TALLIES,):
        raise ValueError(
            f"shapes {integers.shape} and {tallies.shape}, expected {(plan.values,)} and {(TALLIES,)}"
        )
    own = plan.index(client)
    pairs = [pair_secret(plan.digest, client, keys.mask, member) for member in plan.members]
    seeds = [mask_seed(pair) for pair in pairs]
    seeds[own] = random(SEED)
    masks = [(seed, 1 if index >= own else -1) for index, seed in enumerate(seeds)]
    delta = _masked(integers, plan.bits, masks, DELTA_STREAM, check)
    totals = _masked(tallies.copy(), TALLY_BITS, masks, TALLIES_STREAM, check)
    salt = random(SALT)
    commitments = b"".join(
        commitment(plan.digest, client, other, seed) for other, seed in zip(plan.clients, seeds, strict=True)
    )
    digests = {
        name: hashlib.sha256(data).digest() for name, data in ((DELTA, delta), (sections.TALLIES, totals))
    }
    body = body_of(plan.digest, salt, commitments, digests)
    secrets = np.frombuffer(b"".join(seeds), np.uint8).reshape(len(seeds), SEED)
    shares = split(secrets, plan.threshold, len(seeds), random)
    packages = [
        seal_package(share_key(pair, salt, client, holder), plan.digest, body, share.tobytes())
        for holder, pair, share in zip(plan.clients, pairs, shares, strict=True)
    ]
    return MaskedSections(delta, totals, b"".join((salt, commitments, *packages)), body.hex())


def _masked(
    integers: Int64s, bits: int, masks: list[Mask], stream: int, check: Callable[[], None]
) -> memoryview:
    encoding = MASKED[bits]
    words: Words = integers.view(np.uint64) if bits > 32 else integers.astype(encoding.dtype)
    add_masks(words, masks, stream, check)
    return encoding.pack(words)
