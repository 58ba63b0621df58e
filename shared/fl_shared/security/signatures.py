"""Ed25519 signatures (RFC 8032): on the aggregator's JSON messages, and on vouchers.

A signed message has ``"sig"`` as its last member, 64 bytes in base64url without padding (RFC 4648, section
5). The signature covers the topic, a NUL, and all bytes of the payload before ``,"sig":`` (protocol, 9.1).
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from fl_shared.errors import BadSignature

SIGNATURE_BYTES: Final = 64
_P: Final = 2**255 - 19
"""The prime of Ed25519's field."""
_D: Final = -121665 * pow(121666, -1, _P) % _P
"""The curve is -x² + y² = 1 + dx²y² (RFC 8032, 5.1)."""
_MARK: Final = b',"sig":"'
_END: Final = b'"}'
_TEXT: Final = 86
_SIGNATURE_PATTERN: Final = re.compile(rb',"sig":"([A-Za-z0-9_-]{85}[AQgw])"\}')
"""The last of the 86 characters has four bits that must be zero, so that a signature has only one text."""
_TAIL: Final = len(_MARK) + _TEXT + len(_END)


class Signer:
    """Signs messages and other bytes. ``private``: a raw Ed25519 key, 32 bytes."""

    def __init__(self, private: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._key = Ed25519PrivateKey.from_private_bytes(private)

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def sign(self, topic: str, payload: bytes) -> bytes:
        """Adds a signature for ``topic`` to ``payload``, which must be one JSON object that is not empty."""
        body = payload[:-1]
        text = urlsafe_b64encode(self._key.sign(_signed_bytes(topic, body)))[:_TEXT]
        return b"".join((body, _MARK, text, _END))

    def sign_bytes(self, data: bytes) -> bytes:
        """The signature (64 bytes) of ``data``, which no message may start with."""
        return self._key.sign(data)


class Verifier:
    """Checks the signatures of one key. ``public``: a raw Ed25519 key, 32 bytes."""

    def __init__(self, public: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        self._key = Ed25519PublicKey.from_public_bytes(public)

    def check(self, topic: str, payload: bytes | memoryview) -> None:
        """Raises ``BadSignature`` unless ``payload`` is signed for this topic."""
        match = _SIGNATURE_PATTERN.fullmatch(bytes(payload[-_TAIL:]))
        if match is None:
            raise BadSignature("sig: missing, expected as the last member")
        signature = urlsafe_b64decode(match[1] + b"==")
        if not self.is_signature_valid(_signed_bytes(topic, payload[:-_TAIL]), signature):
            raise BadSignature("sig: not the aggregator's signature of this message on this topic")

    def is_signature_valid(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is the one of ``data``."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def check_signing_key(public: bytes) -> bytes:
    """Returns a raw Ed25519 public key, 32 bytes. Raises ``ValueError`` if it is none, or a point of small order.

    For such a point anybody can make signatures, of any bytes.
    """
    y = int.from_bytes(public, "little") & (2**255 - 1)
    squared_y = y * y % _P
    # x² from the curve's equation; the divisor is never 0, since -1/d is no square.
    squared_x = (squared_y - 1) * pow(_D * squared_y + 1, -1, _P) % _P
    if y >= _P or pow(squared_x, (_P - 1) // 2, _P) == _P - 1:
        raise ValueError("not a point of the curve, expected an Ed25519 public key")
    # x = 0 in points of order 1 and 2, y = 0 in those of order 4. Twice a point has y = 0 where x² = -y²: order 8.
    if squared_x * squared_y * (squared_x + squared_y) % _P == 0:
        raise ValueError("a point of small order, expected an Ed25519 public key")
    return public


def _signed_bytes(topic: str, body: bytes | memoryview) -> bytes:
    return b"".join((topic.encode(), b"\0", body))
