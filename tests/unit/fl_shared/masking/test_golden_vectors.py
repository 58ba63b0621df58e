"""The values of ``pairwise-1`` from fixed keys, for edges in other languages (``golden/masking/vectors.json``)."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_shared.masking.plan import CLOSING
from fl_shared.masking.shamir import join, split
from fl_shared.masking.shares import commitment, mask_seed, pair_secret, share_key
from fl_shared.masking.streams import add_masks
from tests.support.masked_rounds import PLAN, MaskedRound, fixed, fixed_random, keys_of, plan_with

PATH = Path(__file__).parents[3] / "golden" / "masking" / "vectors.json"
CLIENTS = ("a", "b", "c", "d")
PRIVACY = {"mechanism": "distributed", "clip": 0.5, "noise": 2.0}


def found() -> dict[str, Any]:
    """All values, as this program computes them."""
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


def test_the_golden_vectors() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        PATH.write_text(json.dumps(found(), indent=1) + "\n", encoding="utf-8")
    assert found() == json.loads(PATH.read_text(encoding="utf-8"))


@pytest.mark.parametrize("other", ["correction", "round", "base"])
def test_another_plan_has_another_digest(other: str) -> None:
    changed: dict[str, Any] = {
        "correction": {"name": "prox", "settings": {"mu": 0.1}},
        "round": 2,
        "base": "c" * 64,
    }
    assert plan_with(CLIENTS, **{other: changed[other]}).digest != plan_with(CLIENTS).digest
