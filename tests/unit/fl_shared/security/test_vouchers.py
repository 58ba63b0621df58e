"""Vouchers: who an account is, with which key, in which roles, and until when (protocol, 9.12)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.security.signatures import Signer, Verifier
from fl_shared.security.vouchers import VOUCHER_BYTES, Voucher, VoucherRole, voucher_roles

KEY = bytes(range(32))
SIGNER = Signer(KEY)
VERIFIER = Verifier(Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw())
PUBLIC = bytes(32)
ROLES: tuple[VoucherRole, ...] = ("train", "evaluate", "predict", "operator")


@given(st.frozensets(st.sampled_from(ROLES)), st.integers(0, 2**64 - 1))
def test_what_is_signed_is_read_again(roles: frozenset[VoucherRole], expires: int) -> None:
    voucher = Voucher("7", PUBLIC, roles, expires)
    encoded = voucher.sign(SIGNER)
    assert len(encoded) == VOUCHER_BYTES
    assert Voucher.read(encoded, "7", PUBLIC, VERIFIER) == voucher
    assert len(voucher.expiry_date) == 10


def test_it_is_for_one_key_of_one_account_and_nothing_in_it_can_be_changed() -> None:
    encoded = Voucher("7", PUBLIC, frozenset({"predict"}), 2**33).sign(SIGNER)
    assert Voucher.read(encoded, "8", PUBLIC, VERIFIER) is None
    assert Voucher.read(encoded, "7", bytes(31) + b"\1", VERIFIER) is None
    other = Verifier(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    assert Voucher.read(encoded, "7", PUBLIC, other) is None
    for place in range(VOUCHER_BYTES):
        changed = encoded[:place] + bytes([encoded[place] ^ 1]) + encoded[place + 1 :]
        assert Voucher.read(changed, "7", PUBLIC, VERIFIER) is None
        assert Voucher.read(encoded[:place], "7", PUBLIC, VERIFIER) is None


def test_it_expires() -> None:
    voucher = Voucher("7", PUBLIC, frozenset({"train"}), 1_800_000_000)
    assert not voucher.has_expired(1_800_000_000)
    assert voucher.has_expired(1_800_000_000.5)
    assert voucher.expiry_date == "2027-01-15"


def test_askers_and_the_aggregator_have_no_role_in_one() -> None:
    assert voucher_roles(("asker",)) == voucher_roles(("aggregator",)) == frozenset()
    assert voucher_roles(["predict", "train"]) == {"train", "predict"}
