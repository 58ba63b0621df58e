"""A key pair for signatures as one for key agreement: Ed25519 as X25519, which are the same curve (RFC 7748, 4.1).

So who has an X25519 key can prove it with a signature. One pair may serve both: E. Thormarker, "On using the same key
pair for Ed25519 and an X25519 based KEM" (2021), proves it for the KEM of HPKE.
"""

from __future__ import annotations

import hashlib
from typing import Final

_P: Final = 2**255 - 19
_KEY_BYTES: Final = 32


def x25519_private(private: bytes) -> bytes:
    """The X25519 private key, 32 bytes, of the pair whose raw Ed25519 private key is ``private`` (RFC 8032, 5.1.5)."""
    return hashlib.sha512(private).digest()[:_KEY_BYTES]


def x25519_public(public: bytes) -> bytes:
    """The X25519 public key, 32 bytes, of the pair whose raw Ed25519 public key is ``public``.

    ``public`` has passed `signatures.check_signing_key`. u = (1 + y) / (1 - y).
    """
    y = int.from_bytes(public, "little") & (2**255 - 1)
    return ((1 + y) * pow(1 - y, -1, _P) % _P).to_bytes(_KEY_BYTES, "little")
