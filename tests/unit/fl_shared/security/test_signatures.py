"""Signatures on the aggregator's messages (protocol, 9.1 and 9.2)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.errors import BadSignature
from fl_shared.protocol import codec
from fl_shared.protocol import topics as t
from fl_shared.protocol.channels import CHANNELS
from fl_shared.security.signatures import Signer, Verifier, check_signing_key
from tests.support.samples import MESSAGES

GOLDEN = Path(__file__).parents[3] / "golden" / "kit"
KEY = bytes(range(32))
PUBLIC = Ed25519PrivateKey.from_private_bytes(KEY).public_key().public_bytes_raw()
SIGNER, VERIFIER = Signer(KEY), Verifier(PUBLIC)
TOPIC = "fl/round/3/selected"
SAMPLES = [
    name
    for name, (_, message) in MESSAGES.items()
    if CHANNELS.carrying(type(message)).encoding == "json" and codec.encode(message).startswith(b"{")
]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_signed_message_is_still_that_message(name: str) -> None:
    """Clause 9.1: who does not know of signatures reads it as ever."""
    topic, message = MESSAGES[name]
    text = t.build("fl", topic)
    payload = codec.encode(message)
    signed = SIGNER.sign(text, payload)
    assert len(signed) == len(payload) + codec.SIGNATURE_OVERHEAD
    assert list(json.loads(signed))[-1] == "sig"
    assert codec.decode(topic, signed) == message
    VERIFIER.check(text, signed)
    VERIFIER.check(text, memoryview(signed).toreadonly())


def test_the_signature_is_of_topic_nul_and_what_stands_before_it() -> None:
    """Clause 9.1, byte by byte, as somebody else would check it."""
    signed = SIGNER.sign(TOPIC, b'{"a":1}')
    body, _, rest = signed.rpartition(b',"sig":')
    assert body == b'{"a":1'
    assert rest.startswith(b'"')
    assert rest.endswith(b'"}')
    from base64 import urlsafe_b64decode

    Ed25519PrivateKey.from_private_bytes(KEY).public_key().verify(
        urlsafe_b64decode(rest[1:-2] + b"=="), TOPIC.encode() + b"\0" + body
    )


SIGNED = SIGNER.sign(TOPIC, b'{"v":2,"kind":"x","sig":"inner"}')


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b'{"v":2}',
        SIGNED[:-1],
        SIGNED + b" ",
        SIGNED.replace(b'"x"', b'"y"'),
        SIGNED[:-3] + bytes([SIGNED[-3] ^ 1]) + SIGNED[-2:],
        SIGNED.replace(b',"sig":', b', "sig":'),
        SIGNED[:-1] + b',"z":1}',
        b"\x80" * 96,
        bytes(200),
    ],
)
def test_what_is_changed_or_not_signed_is_refused(payload: bytes) -> None:
    VERIFIER.check(TOPIC, SIGNED)
    with pytest.raises(BadSignature):
        VERIFIER.check(TOPIC, payload)


def test_a_signature_has_one_text_only() -> None:
    """The last character has four bits to spare; set, they must not make another valid message."""
    last = SIGNED[-3:-2].decode()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = alphabet[alphabet.index(last) + 1]
    with pytest.raises(BadSignature, match="missing"):
        VERIFIER.check(TOPIC, SIGNED[:-3] + twin.encode() + SIGNED[-2:])


def test_it_is_refused_on_another_topic_and_by_another_key() -> None:
    for topic in ("fl/round/4/selected", "fl/round/3/selected/", "fl2/round/3/selected", ""):
        with pytest.raises(BadSignature, match="not the aggregator's"):
            VERIFIER.check(topic, SIGNED)
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    with pytest.raises(BadSignature, match="not the aggregator's"):
        Verifier(other).check(TOPIC, SIGNED)


def test_what_is_moved_between_topic_and_payload_is_refused() -> None:
    signed = SIGNER.sign("fl/a", b'{"x":1}')
    with pytest.raises(BadSignature):
        VERIFIER.check('fl/a\0{"x', signed[3:])


@given(st.binary(max_size=300), st.text(max_size=20))
def test_whatever_the_bytes_it_is_refused_and_nothing_else_happens(payload: bytes, topic: str) -> None:
    with pytest.raises(BadSignature):
        VERIFIER.check(topic, payload)


def test_the_golden_bytes() -> None:
    """Ed25519 draws nothing: the same message has the same signature, whoever makes it with this key."""
    topic, message = MESSAGES["selected"]
    text, path = t.build("fl", topic), GOLDEN / "selected.json"
    signed = SIGNER.sign(text, codec.encode(message))
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_bytes(signed)
    assert signed == path.read_bytes()
    VERIFIER.check(text, path.read_bytes())


def test_no_key_is_shown() -> None:
    assert KEY.hex() not in repr(SIGNER)
    assert repr(KEY) not in repr(vars(SIGNER))


SMALL = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
"""The eight points of small order (of order 1, 2, 4, 4, and four of order 8)."""


@given(st.binary(min_size=32, max_size=32))
def test_every_key_is_one_to_check_signatures_with(private: bytes) -> None:
    public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    assert check_signing_key(public) == public


@pytest.mark.parametrize("public", SMALL)
def test_a_point_of_small_order_is_refused_since_anybody_can_sign_for_it(public: str) -> None:
    key = bytes.fromhex(public)
    # R = 1 and s = 0 is a signature of all messages whose hash is a multiple of the point's order.
    forged = bytes.fromhex(SMALL[0]) + bytes(32)
    assert any(Verifier(key).is_signature_valid(bytes([number]), forged) for number in range(200))
    with pytest.raises(ValueError, match="a point of small order"):
        check_signing_key(key)


def test_what_is_no_point_is_refused() -> None:
    prime = 2**255 - 19
    for number in (2, prime, prime + 1, 2**255 - 1):
        with pytest.raises(ValueError, match="not a point of the curve"):
            check_signing_key(number.to_bytes(32, "little"))
