"""``signatures.json``: the aggregator's signed messages (9.1)."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_shared.protocol import codec
from fl_shared.protocol import topics as t
from fl_shared.security.signatures import Signer
from tests.support.samples import MESSAGES

SIGNING = bytes(range(32))
SIGNED = ("aggregator", "admitted", "refused", "accepted", "selected", "result", "model", "status")


def public_key(private: bytes) -> bytes:
    """The Ed25519 public key, 32 bytes."""
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def vectors() -> dict[str, Any]:
    """Messages of `MESSAGES` with their signature."""
    signer = Signer(SIGNING)
    messages: dict[str, Any] = {}
    for name in SIGNED:
        topic, message = MESSAGES[name]
        text, payload = t.build("fl", topic), codec.encode(message)
        covered = text.encode() + b"\0" + payload[:-1]
        messages[name] = {
            "topic": text,
            "covered": covered.hex(),
            "signature": (sig := signer.sign_bytes(covered)).hex(),
            "sig": urlsafe_b64encode(sig).decode().rstrip("="),
            "payload": signer.sign(text, payload).hex(),
        }
    return {"private": SIGNING.hex(), "public": public_key(SIGNING).hex(), "messages": messages}
