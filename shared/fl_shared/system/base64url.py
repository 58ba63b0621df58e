"""Base64url without padding (RFC 4648, section 5): how messages in JSON have bytes."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode


def encoded(data: bytes) -> str:
    """``data`` as text."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """The bytes in ``text``. Raises ``ValueError`` for a length that no bytes have; other characters are left out."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
