"""Vouchers: who an account is, with which key, in which roles, and until when (protocol, 9.12)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.security.signatures import SIGNATURE_BYTES, Signer, Verifier
from fl_shared.security.vouchers import VOUCHER_BYTES, Member, Voucher, VoucherRole, voucher_roles

KEY = bytes(range(32))
SIGNER = Signer(KEY)
VERIFIER = Verifier(Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw())
PUBLIC = bytes(32)
ROLES: tuple[VoucherRole, ...] = ("train", "evaluate", "predict", "operator", "region")


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


@given(st.integers(0, 2**64 - 1))
def test_a_members_voucher_is_a_signature_of_what_other_members_know(until: int) -> None:
    voucher = Member("ward-3", PUBLIC, until).sign(SIGNER)
    signed = b"fl-mqtt member 1\0ward-3\0" + PUBLIC + until.to_bytes(8, "big")
    Ed25519PrivateKey.from_private_bytes(KEY).public_key().verify(voucher, signed)
    assert Member("ward-3", PUBLIC, until).is_voucher(voucher, VERIFIER)


def test_a_members_voucher_is_for_one_key_of_one_account_until_one_moment() -> None:
    member = Member("7", PUBLIC, 2**33)
    voucher = member.sign(SIGNER)
    for other in (Member("8", PUBLIC, 2**33), Member("7", KEY, 2**33), Member("7", PUBLIC, 2**33 + 1)):
        assert not other.is_voucher(voucher, VERIFIER)
    for place in range(SIGNATURE_BYTES):
        changed = voucher[:place] + bytes([voucher[place] ^ 1]) + voucher[place + 1 :]
        assert not member.is_voucher(changed, VERIFIER)
        assert not member.is_voucher(voucher[:place], VERIFIER)


def test_no_voucher_serves_as_one_of_the_other_kind() -> None:
    encoded = Voucher("7", PUBLIC, frozenset({"train"}), 2**33).sign(SIGNER)
    assert not Member("7", PUBLIC, 2**33).is_voucher(encoded[-SIGNATURE_BYTES:], VERIFIER)
    terms = encoded[:-SIGNATURE_BYTES]
    assert Voucher.read(terms + Member("7", PUBLIC, 2**33).sign(SIGNER), "7", PUBLIC, VERIFIER) is None
