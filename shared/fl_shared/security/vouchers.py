"""Vouchers: the aggregator's signature on who an account is, with which key, in which roles, and until when.

An encoded voucher has 73 bytes (protocol, 9.12)::

    roles (1, a bit each)  expiry (8, big-endian, seconds since 1970)  signature (64)

The account's name and its public key are signed, too. They are not in the bytes, since whoever checks a voucher knows
them from the topic and from the sealed message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Self, get_args

from fl_shared.security.signatures import SIGNATURE_BYTES, Signer, Verifier

VoucherRole = Literal["train", "evaluate", "predict", "operator"]
"""The roles of an account that seals messages. Askers have no voucher, and the aggregator needs none."""

_ROLES: Final[tuple[VoucherRole, ...]] = get_args(VoucherRole)
"""The first has the lowest bit."""
_MARK: Final = b"fl-mqtt voucher 1\0"
"""The start of what the signature covers. No message starts so: a topic holds no space."""
_TERMS: Final = struct.Struct(">BQ")
VOUCHER_BYTES: Final = _TERMS.size + SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class Voucher:
    """What a voucher says of an account. ``public``: its raw X25519 key. ``expires``: seconds since 1970."""

    account: str
    public: bytes
    roles: frozenset[VoucherRole]
    expires: int

    def sign(self, signer: Signer) -> bytes:
        """The encoded voucher, signed with the aggregator's key."""
        bits = sum(1 << place for place, role in enumerate(_ROLES) if role in self.roles)
        terms = _TERMS.pack(bits, self.expires)
        return terms + signer.sign_bytes(_signed_bytes(self.account, self.public, terms))

    @classmethod
    def read(cls, encoded: bytes, account: str, public: bytes, verifier: Verifier) -> Self | None:
        """Reads a voucher (73 bytes) for the key ``public`` of ``account``; null if it is not a valid one of theirs.

        It may have expired.
        """
        terms, signature = encoded[: _TERMS.size], encoded[_TERMS.size :]
        if not verifier.is_signature_valid(_signed_bytes(account, public, terms), signature):
            return None
        bits, expires = _TERMS.unpack(terms)
        return cls(account, public, _roles_in(bits), expires)

    def has_expired(self, now: float) -> bool:
        """Whether it is no longer valid at ``now``, in seconds since 1970."""
        return now > self.expires

    @property
    def expiry_date(self) -> str:
        """The last day on which it is valid, in UTC."""
        return f"{datetime.fromtimestamp(min(self.expires, _LATEST), UTC):%Y-%m-%d}"


_LATEST: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


def voucher_roles(roles: Iterable[str]) -> frozenset[VoucherRole]:
    """Those of an account's ``roles`` that a voucher can have."""
    given = set(roles)
    return frozenset(role for role in _ROLES if role in given)


def _roles_in(bits: int) -> frozenset[VoucherRole]:
    return frozenset(role for place, role in enumerate(_ROLES) if bits >> place & 1)


def _signed_bytes(account: str, public: bytes, terms: bytes) -> bytes:
    return b"".join((_MARK, account.encode(), b"\0", public, terms))
