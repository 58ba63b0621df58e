"""Vouchers: the enrolment key's signatures on who an account is, with which key, and until when.

The voucher of an account that seals messages is about its X25519 key, and has its roles. Encoded it has 73 bytes
(protocol, 9.12)::

    roles (1, a bit each)  expiry (8, big-endian, seconds since 1970)  signature (64)

The account's name and its public key are signed, too. They are not in the bytes, since whoever checks a voucher knows
them from the topic and from the sealed message. The voucher of a member, an account that trains, is about its Ed25519
key, and is the signature alone: other members get all else beside it (protocol, 10.1).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Self, get_args

from fl_shared.security.signatures import SIGNATURE_BYTES, Signer, Verifier

VoucherRole = Literal["train", "evaluate", "predict", "operator", "region"]
"""The roles of an account that seals messages. Askers have no voucher, and the aggregator needs none."""

_ROLES: Final[tuple[VoucherRole, ...]] = get_args(VoucherRole)
"""The first has the lowest bit."""
_MARK: Final = b"fl-mqtt voucher 1\0"
"""The start of what the signature covers. No message starts so: a topic holds no space."""
_MEMBER_MARK: Final = b"fl-mqtt member 1\0"
_TERMS: Final = struct.Struct(">BQ")
_UNTIL: Final = struct.Struct(">Q")
VOUCHER_BYTES: Final = _TERMS.size + SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class Voucher:
    """What a voucher says of an account. ``public``: its raw X25519 key. ``expires``: seconds since 1970."""

    account: str
    public: bytes
    roles: frozenset[VoucherRole]
    expires: int

    def sign(self, signer: Signer) -> bytes:
        """The encoded voucher, signed with the enrolment key."""
        bits = sum(1 << place for place, role in enumerate(_ROLES) if role in self.roles)
        terms = _TERMS.pack(bits, self.expires)
        return terms + signer.sign_bytes(_signed_bytes(_MARK, self.account, self.public, terms))

    @classmethod
    def read(cls, encoded: bytes, account: str, public: bytes, verifier: Verifier) -> Self | None:
        """Reads a voucher (73 bytes) for the key ``public`` of ``account``; null if it is not a valid one of theirs.

        It may have expired.
        """
        terms, signature = encoded[: _TERMS.size], encoded[_TERMS.size :]
        if not verifier.is_signature_valid(_signed_bytes(_MARK, account, public, terms), signature):
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


@dataclass(frozen=True, slots=True)
class Member:
    """Whom a member's voucher is for. ``public``: its raw Ed25519 key. ``until``: seconds since 1970, below 2^64."""

    account: str
    public: bytes
    until: int

    def sign(self, signer: Signer) -> bytes:
        """The voucher (64 bytes), signed with the enrolment key."""
        return signer.sign_bytes(member_bytes(self.account, self.public, self.until))

    def is_voucher(self, voucher: bytes, verifier: Verifier) -> bool:
        """Whether ``voucher`` is one of this member; it may have expired."""
        return verifier.is_signature_valid(member_bytes(self.account, self.public, self.until), voucher)


def member_bytes(account: str, public: bytes, until: int) -> bytes:
    """What the enrolment key signs: ``public`` is the Ed25519 key of ``account`` until then, seconds since 1970."""
    return _signed_bytes(_MEMBER_MARK, account, public, _UNTIL.pack(until))


_LATEST: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


def voucher_roles(roles: Iterable[str]) -> frozenset[VoucherRole]:
    """Those of an account's ``roles`` that a voucher can have."""
    given = set(roles)
    return frozenset(role for role in _ROLES if role in given)


def _roles_in(bits: int) -> frozenset[VoucherRole]:
    return frozenset(role for place, role in enumerate(_ROLES) if bits >> place & 1)


def _signed_bytes(mark: bytes, account: str, public: bytes, terms: bytes) -> bytes:
    return b"".join((mark, account.encode(), b"\0", public, terms))
