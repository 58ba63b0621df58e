"""``seals.json``: vouchers, and messages of an edge that only the aggregator can open (9.10 to 9.12)."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_shared.protocol import codec
from fl_shared.protocol import topics as t
from fl_shared.security import hpke
from fl_shared.security.sealing import INFO, Sealer
from fl_shared.security.signatures import Signer
from fl_shared.security.vouchers import Voucher
from tests.support.samples import MESSAGES
from tests.support.vectors.signatures import SIGNING, public_key

AGGREGATOR = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
EDGE = X25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
EPHEMERAL = X25519PrivateKey.from_private_bytes(bytes(range(3, 35)))
EXPIRES = 2_000_000_000
SEALED = ("register-first", "register-second", "update", "failed")


def vectors() -> dict[str, Any]:
    """The keys, the voucher of edge 7, and its first messages, which have the sequence numbers 0, 1, …"""
    recipient, edge = AGGREGATOR.public_key().public_bytes_raw(), EDGE.public_key().public_bytes_raw()
    voucher = Voucher("7", edge, frozenset({"train", "predict"}), EXPIRES).sign(Signer(SIGNING))
    enc, secret = hpke.encapsulate(recipient, EDGE, EPHEMERAL)
    sealer = Sealer(EDGE.private_bytes_raw(), voucher, recipient, ephemeral=EPHEMERAL)
    messages = []
    for sequence, name in enumerate(SEALED):
        topic, message = MESSAGES[name]
        text, plain = t.build("fl", topic), codec.encode(message)
        messages.append(
            {
                "topic": text,
                "sequence": sequence,
                "plain": plain.hex(),
                "sealed": sealer.seal(text, plain).hex(),
            }
        )
    return {
        "aggregator": _pair(AGGREGATOR),
        "edge": _pair(EDGE),
        "ephemeral": _pair(EPHEMERAL),
        "info": INFO.decode(),
        "enc": enc.hex(),
        "shared_secret": secret.hex(),
        "voucher": {
            "enrolment_private": SIGNING.hex(),
            "enrolment_public": public_key(SIGNING).hex(),
            "account": "7",
            "roles": ["train", "predict"],
            "expires": EXPIRES,
            "encoded": voucher.hex(),
        },
        "messages": messages,
    }


def _pair(key: X25519PrivateKey) -> dict[str, str]:
    return {"private": key.private_bytes_raw().hex(), "public": key.public_key().public_bytes_raw().hex()}
