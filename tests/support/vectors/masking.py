"""``masking.json``: the values of ``pairwise-1`` from fixed keys (section 10)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from fl_shared.masking.plan import CLOSING
from fl_shared.masking.shamir import join, split
from fl_shared.masking.shares import commitment, mask_seed, pair_secret, share_key
from fl_shared.masking.streams import add_masks
from tests.support.masked_rounds import PLAN, MaskedRound, fixed, fixed_random, keys_of, plan_with

CLIENTS = ("a", "b", "c", "d")
PRIVACY = {"mechanism": "distributed", "clip": 0.5, "noise": 2.0}


def vectors() -> dict[str, Any]:
    """The values of a round with four members."""
    plan, private = plan_with(CLIENTS), plan_with(CLIENTS, privacy=PRIVACY)
    pair = pair_secret(plan.digest, "a", keys_of("a").mask, plan.members[1])
    seed = mask_seed(pair)
    stream = np.zeros(4, "<u8")
    add_masks(stream, [(seed, 1)], 0)
    secret = np.frombuffer(fixed("secret")[:16], np.uint8)
    shares = split(secret, plan.threshold, len(CLIENTS), fixed_random("coefficients"))
    included = {client: fixed(f"body {client}").hex() for client in ("a", "b", "d")}
    closing = plan.closing(included)
    made = MaskedRound(plan, fixed_random("random")).upload("a", np.arange(-3, 5), np.arange(8))
    return {
        "keys": "SHA-256('fl-mqtt vector mask a') is the private X25519 key of a, 'sign a' its Ed25519 key",
        "plan_without_keys": PLAN | {"threshold": plan.threshold, "least": plan.least, "colluders": 1},
        "members": [[one.client, one.mask.hex(), one.agree.hex()] for one in plan.members],
        "plan": plan.digest.hex(),
        "plan_of_private_round": {"privacy": PRIVACY, "plan": private.digest.hex()},
        "pair_ab": pair.hex(),
        "seed_ab": seed.hex(),
        "mask_ab_first_four_u64": stream.tolist(),
        "commitment_ab": commitment(plan.digest, "a", "b", seed).hex(),
        "share_key_a_to_b": share_key(pair, fixed("salt")[:16], "a", "b").hex(),
        "shamir": {
            "secret": secret.tobytes().hex(),
            "coefficients": "SHAKE-256('fl-mqtt vector coefficients'), degree 1 first",
            "shares": [share.tobytes().hex() for share in shares],
            "joined": join({index: shares[index] for index in (0, 2, 3)}).tobytes().hex(),
        },
        "included": included,
        "closing": closing.hex(),
        "signature_a": keys_of("a").agree.sign(CLOSING + closing).hex(),
        "masked_a": {
            "random": "SHAKE-256('fl-mqtt vector random'): own seed, salt, coefficients",
            "integers": list(range(-3, 5)),
            "tallies_in": list(range(8)),
            "delta": bytes(made.delta).hex(),
            "tallies": bytes(made.tallies).hex(),
            "shares_sha256": hashlib.sha256(made.shares).hexdigest(),
            "body": made.body,
        },
    }
