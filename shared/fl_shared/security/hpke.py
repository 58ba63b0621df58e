"""Hybrid public key encryption (RFC 9180) in authenticated mode (5.1.3), which proves who the sender is.

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. The primitives are from ``cryptography``, which has no
authenticated mode of its own; tests compare this module with the RFC's test vectors. Keys are raw X25519
keys, 32 bytes.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fl_shared.errors import CannotOpen

KEY_BYTES: Final = 32
"""Bytes of a raw X25519 or Ed25519 key, public or private, and of an encapsulation."""
TAG_BYTES: Final = 16
"""Bytes by which a text grows when it is sealed."""
_NONCE_BYTES: Final = 12
_AUTH: Final = b"\x02"
_KEM: Final = b"\x00\x20"
_KDF: Final = b"\x00\x01"
_AES_256_GCM: Final = 2
_VERSION: Final = b"HPKE-v1"


class Context:
    """The keys that both sides share after an encapsulation. The caller counts the sequence numbers.

    ``aead`` and ``key_bytes`` differ from AES-256-GCM only for the RFC's test vectors of AES-128-GCM.
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
        """Encrypts ``text`` and appends a tag. No two texts may have the same ``sequence`` (below 2^64)."""
        return self._aead.encrypt((self._nonce ^ sequence).to_bytes(_NONCE_BYTES, "big"), text, aad)

    def open(self, sequence: int, aad: bytes, sealed: bytes | memoryview) -> bytes:
        """Decrypts what `seal` made with the same sequence number and ``aad``. Raises ``CannotOpen``."""
        try:
            return self._aead.decrypt((self._nonce ^ sequence).to_bytes(_NONCE_BYTES, "big"), sealed, aad)
        except (InvalidTag, ValueError):
            raise CannotOpen("the content does not match its seal") from None


def encapsulate(
    recipient: bytes, sender: X25519PrivateKey, ephemeral: X25519PrivateKey | None = None
) -> tuple[bytes, bytes]:
    """Makes a secret for ``recipient``; returns the encapsulation to send (32 bytes), and the secret.

    This is AuthEncap of RFC 9180. ``ephemeral``: a fixed key for tests, None for a fresh one.
    """
    ephemeral_key = X25519PrivateKey.generate() if ephemeral is None else ephemeral
    to = X25519PublicKey.from_public_bytes(recipient)
    enc = ephemeral_key.public_key().public_bytes_raw()
    shared = ephemeral_key.exchange(to) + sender.exchange(to)
    return enc, _shared_secret(shared, enc + recipient + sender.public_key().public_bytes_raw())


def decapsulate(recipient: X25519PrivateKey, sender: bytes, enc: bytes) -> bytes:
    """The secret in the encapsulation ``enc``, if ``sender`` made it (AuthDecap). Raises ``CannotOpen``."""
    try:
        shared = b"".join(
            recipient.exchange(X25519PublicKey.from_public_bytes(public)) for public in (enc, sender)
        )
    except ValueError:  # a point of small order
        raise CannotOpen("its keys are not valid") from None
    return _shared_secret(shared, enc + recipient.public_key().public_bytes_raw() + sender)


def check_public_key(public: bytes) -> bytes:
    """Returns a raw X25519 public key. Raises ``ValueError`` for a point of small order, which keeps no secret."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise ValueError("a point of small order, expected an X25519 public key") from None
    return public


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
