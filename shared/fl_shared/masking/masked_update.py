"""What an edge makes of the integers of its update: words under masks, and the shares of the masks' seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    shares_manifest,
    shares_size,
)
from fl_shared.masking.streams import DELTA_STREAM, TALLIES_STREAM, Mask, MaskStreams, add_masks
from fl_shared.masking.tallies import TALLIES, TALLIES_MANIFEST, TALLY_BITS
from fl_shared.protocol.kinds.masked import SEED
from fl_shared.tensors import sections
from fl_shared.tensors.digest import ContentHash
from fl_shared.tensors.encodings.integers import Int64s
from fl_shared.tensors.encodings.masked import MASKED, RAW
from fl_shared.tensors.sections import DELTA, SHARES

Integers = Callable[[int, Int64s], None]
"""Writes the integers of an update from an index on to an array, which says how many."""


@dataclass(frozen=True, slots=True)
class MaskedSections:
    """The three sections of a masked update, its body and its digest (protocol, 3.4), both hex."""

    delta: memoryview = field(repr=False)
    tallies: memoryview = field(repr=False)
    shares: bytes = field(repr=False)
    body: str
    digest: str


def mask_update(
    plan: Plan,
    client: str,
    keys: RunKeys,
    integers: Integers,
    tallies: Int64s,
    random: Callable[[int], bytes],
    out: memoryview | None = None,
    check: Callable[[], None] = lambda: None,
) -> MaskedSections:
    """Masks an update of ``client``, which has plan.values ``integers``; ``tallies``: shape (8,).

    ``random`` returns so many bytes from a cryptographic source. ``out``: where the section ``delta`` goes; only masked
    words are written to it. ``check`` is called for each block, and may raise, in order to end it. The seeds are
    forgotten. Raises ``ValueError`` for another length, ``KeyError`` for no member.
    """
    encoding, count = MASKED[plan.bits], len(plan.members)
    size = encoding.sizes(plan.values)[0]
    delta = memoryview(bytearray(size)) if out is None else out
    if len(delta) != size or tallies.shape != (TALLIES,):
        raise ValueError(f"{len(delta)} bytes and {tallies.shape} tallies, expected {size} and {(TALLIES,)}")
    own = plan.index(client)
    pairs = [pair_secret(plan.digest, client, keys.mask, member) for member in plan.members]
    seeds = [mask_seed(pair) for pair in pairs]
    seeds[own] = random(SEED)
    masks = [(seed, 1 if index >= own else -1) for index, seed in enumerate(seeds)]
    content = ContentHash(
        (
            (DELTA, encoding.name, plan.manifest, size),
            (SHARES, RAW.name, shares_manifest(shares_size(count)).digest, shares_size(count)),
            (
                sections.TALLIES,
                MASKED[TALLY_BITS].name,
                TALLIES_MANIFEST.digest,
                MASKED[TALLY_BITS].sizes(TALLIES)[0],
            ),
        )
    )
    _mask_delta(plan, integers, masks, delta, check)
    content.update(delta)
    counts = tallies.copy().view(np.uint64)
    add_masks(counts, masks, TALLIES_STREAM)
    totals = MASKED[TALLY_BITS].pack(counts)
    salt = random(SALT)
    commitments = b"".join(
        commitment(plan.digest, client, other, seed) for other, seed in zip(plan.clients, seeds, strict=True)
    )
    body = body_of(plan.digest, salt, commitments, content.first, totals)
    secrets = np.frombuffer(b"".join(seeds), np.uint8).reshape(len(seeds), SEED)
    shares = split(secrets, plan.threshold, len(seeds), random)
    packages = [
        seal_package(share_key(pair, salt, client, holder), plan.digest, body, share.tobytes())
        for holder, pair, share in zip(plan.clients, pairs, shares, strict=True)
    ]
    whole = b"".join((salt, commitments, *packages))
    content.update(whole)
    content.update(totals)
    return MaskedSections(delta, totals, whole, body.hex(), content.hexdigest())


def _mask_delta(
    plan: Plan,
    integers: Integers,
    masks: Sequence[Mask],
    out: memoryview,
    check: Callable[[], None],
) -> None:
    """Makes, masks and packs one block after the other, while it is in the cache."""
    encoding = MASKED[plan.bits]
    streams = MaskStreams(masks, DELTA_STREAM, encoding.dtype)
    buffer = np.empty(min(streams.block, plan.values), np.int64)
    place = 0
    for start in range(0, plan.values, streams.block):
        check()
        block = buffer[: plan.values - start]
        integers(start, block)
        words = block.astype(encoding.dtype) if plan.bits == 32 else block.view(encoding.dtype)
        streams.add_to(words)
        packed = encoding.pack(words)
        out[place : place + len(packed)] = packed
        place += len(packed)
