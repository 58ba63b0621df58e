"""The enrolment key: it vouches for accounts, so that the aggregator, which never has it, cannot invent any."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_shared.security.kit import AccountRole
from fl_shared.security.revocations import RevocationList
from fl_shared.security.signatures import Signer
from fl_shared.security.vouchers import Member, Voucher, voucher_roles


@dataclass(frozen=True, slots=True)
class MemberKey:
    """The raw Ed25519 key of a member, and the voucher for it, which is valid ``until`` (seconds since 1970)."""

    private: bytes
    until: int
    voucher: bytes


class Enrolment:
    """Issues vouchers, signed with the enrolment key. They expire as the account's certificate does."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._signer = Signer(key.private_bytes_raw())
        self.public = key.public_key().public_bytes_raw()

    def issue_list(self, revoked: RevocationList) -> bytes:
        """The signed list of revoked kits, as the content of its file."""
        return revoked.sign(self._signer)

    def issue_voucher(self, account: str, public: bytes, roles: Iterable[AccountRole], expires: int) -> bytes:
        """The voucher for an account's sealing key ``public`` (X25519, raw, 32 bytes), and for its roles."""
        return Voucher(account, public, voucher_roles(roles), expires).sign(self._signer)

    def issue_member(self, account: str, until: int) -> MemberKey:
        """A new key, with its voucher, for an account that trains."""
        key = Ed25519PrivateKey.generate()
        voucher = self.issue_member_voucher(account, key.public_key().public_bytes_raw(), until)
        return MemberKey(key.private_bytes_raw(), until, voucher)

    def issue_member_voucher(self, account: str, public: bytes, until: int) -> bytes:
        """The voucher for the member key ``public`` (Ed25519, raw, 32 bytes) of an account that trains."""
        return Member(account, public, until).sign(self._signer)
