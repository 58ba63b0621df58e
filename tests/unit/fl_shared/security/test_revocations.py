"""The list of revoked kits: signed with the enrolment key, strictly parsed (protocol, 14)."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_shared.security.revocations import _MARK, InvalidList, RevocationList
from fl_shared.security.signatures import Signer, Verifier
from fl_shared.security.vouchers import Voucher

KEY = bytes(range(32))
SIGNER = Signer(KEY)
VERIFIER = Verifier(Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw())
LIST = RevocationList(number=7, accounts=("3", "ward-1"), keys=("0f" * 32,))


def test_what_is_signed_is_read_again() -> None:
    assert RevocationList.read(LIST.sign(SIGNER), VERIFIER) == LIST


def test_no_byte_of_it_can_be_changed() -> None:
    content = LIST.sign(SIGNER)
    for place in range(len(content) - 1):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        with pytest.raises(InvalidList, match="not signed with the enrolment key"):
            RevocationList.read(changed, VERIFIER)


@pytest.mark.parametrize("content", [b"", b"{}", b"\n", b'{"number":1}', b"\xff" * 100], ids=repr)
def test_what_is_not_a_list_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidList):
        RevocationList.read(content, VERIFIER)


def test_another_key_signs_no_list_and_a_signature_of_something_else_is_none() -> None:
    other = Signer(bytes(32))
    with pytest.raises(InvalidList):
        RevocationList.read(LIST.sign(other), VERIFIER)
    on_a_topic = SIGNER.sign("fl/status", LIST.model_dump_json().encode())
    with pytest.raises(InvalidList):
        RevocationList.read(on_a_topic, VERIFIER)
    voucher = Voucher("7", bytes(32), frozenset({"train"}), 2**33).sign(SIGNER)
    with pytest.raises(InvalidList):
        RevocationList.read(voucher, VERIFIER)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"format":2,"number":1,"accounts":[],"keys":[]}', "format: "),
        (b'{"number":0,"accounts":[],"keys":[]}', "number: "),
        (b'{"number":1.5,"accounts":[],"keys":[]}', "number: "),
        (b'{"number":1,"accounts":["a/b"],"keys":[]}', "accounts.0: "),
        (b'{"number":1,"accounts":[],"keys":["0F"]}', "keys.0: "),
        (b'{"number":1,"accounts":[],"keys":[],"more":1}', "more: "),
        (b'{"number":1,"accounts":[]}', "keys: "),
    ],
)
def test_a_signed_list_of_another_form_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(InvalidList, match=said):
        RevocationList.read(SIGNER.sign(_MARK, text), VERIFIER)
