"""Hybrid public key encryption (RFC 9180) in the authenticated mode (5.1.3): whoever opens it knows who sealed it.

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. The primitives are those of ``cryptography``, which has no
authenticated mode of its own; tests hold this against the RFC's test vectors. Keys are raw X25519 keys, 32 bytes.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fl_shared.errors import CannotOpen

KEY_BYTES: Final = 32
"""Bytes of a key, and of what is encapsulated."""
TAG_BYTES: Final = 16
"""Bytes by which a text grows when it is sealed."""
_NONCE_BYTES: Final = 12
_AUTH: Final = b"\x02"
_KEM: Final = b"\x00\x20"
_KDF: Final = b"\x00\x01"
_AES_256_GCM: Final = 2
_VERSION: Final = b"HPKE-v1"


class Context:
    """What both sides have in common after an encapsulation. Sequence numbers are the caller's matter.

    ``aead`` and ``key_bytes`` are AES-256-GCM's but for the RFC's vectors of AES-128-GCM.
    """

    def __init__(
        self, shared_secret: bytes, info: bytes, *, aead: int = _AES_256_GCM, key_bytes: int = KEY_BYTES
    ) -> None:
        suite = b"HPKE" + _KEM + _KDF + aead.to_bytes(2, "big")
        context = _AUTH + _extract(suite, b"", b"psk_id_hash", b"") + _extract(suite, b"", b"info_hash", info)
        secret = _extract(suite, shared_secret, b"secret", b"")
        self._aead = AESGCM(_expand(suite, secret, b"key", context, key_bytes))
        self._nonce = int.from_bytes(_expand(suite, secret, b"base_nonce", context, _NONCE_BYTES), "big")

    def seal(self, sequence: int, aad: bytes, text: bytes | memoryview) -> bytes:
        """``text`` and a tag; a sequence number (below 2^64) must not be used for two texts."""
        return self._aead.encrypt((self._nonce ^ sequence).to_bytes(_NONCE_BYTES, "big"), text, aad)

    def open(self, sequence: int, aad: bytes, sealed: bytes | memoryview) -> bytes:
        """Raises ``CannotOpen``."""
        try:
            return self._aead.decrypt((self._nonce ^ sequence).to_bytes(_NONCE_BYTES, "big"), sealed, aad)
        except (InvalidTag, ValueError):
            raise CannotOpen("the content does not match its seal") from None


def encapsulate(
    recipient: bytes, sender: X25519PrivateKey, ephemeral: X25519PrivateKey | None = None
) -> tuple[bytes, bytes]:
    """What is to be sent (32 bytes), and the secret that it stands for (RFC 9180, AuthEncap).

    ``ephemeral``: a fresh key if null.
    """
    fresh = X25519PrivateKey.generate() if ephemeral is None else ephemeral
    to = X25519PublicKey.from_public_bytes(recipient)
    enc = fresh.public_key().public_bytes_raw()
    shared = fresh.exchange(to) + sender.exchange(to)
    return enc, _shared_secret(shared, enc + recipient + sender.public_key().public_bytes_raw())


def decapsulate(recipient: X25519PrivateKey, sender: bytes, enc: bytes) -> bytes:
    """The secret that ``enc`` stands for, if ``sender`` made it (AuthDecap). Raises ``CannotOpen``."""
    try:
        shared = b"".join(
            recipient.exchange(X25519PublicKey.from_public_bytes(public)) for public in (enc, sender)
        )
    except ValueError:  # a point of small order
        raise CannotOpen("its keys are not valid") from None
    return _shared_secret(shared, enc + recipient.public_key().public_bytes_raw() + sender)


def _shared_secret(shared: bytes, context: bytes) -> bytes:
    suite = b"KEM" + _KEM
    return _expand(suite, _extract(suite, b"", b"eae_prk", shared), b"shared_secret", context, KEY_BYTES)


def _extract(suite: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    """LabeledExtract (RFC 9180, 4); HKDF-Extract is RFC 5869, 2.2."""
    return hmac.digest(salt, _VERSION + suite + label + key, "sha256")


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand (RFC 9180, 4). HKDF-Expand (RFC 5869, 2.3) needs one block: ``length`` is at most 32."""
    labeled = length.to_bytes(2, "big") + _VERSION + suite + label + info
    return hmac.digest(key, labeled + b"\x01", "sha256")[:length]
