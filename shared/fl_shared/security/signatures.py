"""Ed25519 signatures (RFC 8032) on the aggregator's JSON messages, and on the keys of accounts.

A signed message has ``"sig"`` as its last member, 64 bytes in base64url without padding (RFC 4648, section
5). The signature covers the topic, a NUL, and all bytes of the payload before ``,"sig":`` (protocol, 9.1). A
*voucher* is the aggregator's signature on the name and the sealing key of an account, which the account shows
with its messages.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fl_shared.errors import BadSignature

SIGNATURE_BYTES: Final = 64
"""Bytes of a signature, and of a voucher."""
_MARK: Final = b',"sig":"'
_END: Final = b'"}'
_TEXT: Final = 86
_SIGNATURE_PATTERN: Final = re.compile(rb',"sig":"([A-Za-z0-9_-]{85}[AQgw])"\}')
"""The last of the 86 characters has four bits that must be zero, so that a signature has only one text."""
_TAIL: Final = len(_MARK) + _TEXT + len(_END)
_VOUCHER: Final = b"fl-mqtt voucher 1\0"
"""The start of what a voucher's signature covers. No message starts so: a topic holds no space."""


class Signer:
    """Signs messages and vouchers. ``private``: a raw Ed25519 key, 32 bytes."""

    def __init__(self, private: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private)

    def sign(self, topic: str, payload: bytes) -> bytes:
        """Adds a signature for ``topic`` to ``payload``, which must be one JSON object that is not empty."""
        body = payload[:-1]
        text = urlsafe_b64encode(self._key.sign(_signed_bytes(topic, body)))[:_TEXT]
        return b"".join((body, _MARK, text, _END))

    def sign_voucher(self, account: str, public: bytes) -> bytes:
        """Makes a voucher (64 bytes) for the key ``public`` of ``account``."""
        return self._key.sign(_voucher_bytes(account, public))


class Verifier:
    """Checks the aggregator's signatures. ``public``: its raw Ed25519 key, 32 bytes."""

    def __init__(self, public: bytes) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(public)

    def check(self, topic: str, payload: bytes | memoryview) -> None:
        """Raises ``BadSignature`` unless ``payload`` is signed for this topic."""
        match = _SIGNATURE_PATTERN.fullmatch(bytes(payload[-_TAIL:]))
        if match is None:
            raise BadSignature("sig: missing, expected as the last member")
        signature = urlsafe_b64decode(match[1] + b"==")
        try:
            self._key.verify(signature, _signed_bytes(topic, payload[:-_TAIL]))
        except InvalidSignature:
            raise BadSignature("sig: not the aggregator's signature of this message on this topic") from None

    def is_voucher_valid(self, account: str, public: bytes, voucher: bytes) -> bool:
        """Whether ``voucher`` is a valid voucher for the key ``public`` of ``account``."""
        try:
            self._key.verify(voucher, _voucher_bytes(account, public))
        except InvalidSignature:
            return False
        return True


def _signed_bytes(topic: str, body: bytes | memoryview) -> bytes:
    return b"".join((topic.encode(), b"\0", body))


def _voucher_bytes(account: str, public: bytes) -> bytes:
    return b"".join((_VOUCHER, account.encode(), b"\0", public))
