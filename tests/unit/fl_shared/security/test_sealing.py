"""Sealed messages (protocol, 9.10 ff.), and RFC 9180's own test vectors for what seals them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fl_shared.errors import CannotOpen
from fl_shared.protocol import codec
from fl_shared.protocol import topics as t
from fl_shared.protocol.codec import is_sealed
from fl_shared.security import hpke
from fl_shared.security.sealing import SEAL_OVERHEAD, Opener, Sealer
from fl_shared.security.signatures import Signer, Verifier
from fl_shared.security.vouchers import Voucher
from fl_shared.transfer import upload
from tests.support.samples import MESSAGES

x = bytes.fromhex

AES_256: dict[str, Any] = {
    "aead": 2,
    "key_bytes": 32,
    "skRm": x("47f1eee3670dfaaf27c30a83d06ee9f257af174727c17b35328ef730dfc1cd81"),
    "skSm": x("98fdf9b9773578a79d4ba82fbe483c74cc2e3b8d9525d148a18969fd79a74876"),
    "skEm": x("805b278cabd22c9dbd461bf25771703eda4950ed3ef35b369163097899555356"),
    "pkRm": x("3668d659cec6f338f4f8dc6da6733118d2a633f186a3c1415c895111a8eb7c7d"),
    "pkSm": x("4a91c3d0893433f5e31a79fc520f885527a1bc60bf2b0c72693dd7f0b2e41a5a"),
    "enc": x("9e59f4b1fa5c876f684765290c34e51145894cc4f244342b9fb1a4bdfd8bb426"),
    "shared_secret": x("6579475ca739247fad60b7713b0077f1e966e0eaf6f95bff8fa41e446db4b226"),
    "texts": {
        0: x("10b964283ac2cc0bdc4c85ab617291b446bf3832e9359b2c3a0facc50ea75a3c1afd08aeaacd6041d02eb560ec"),
        1: x("83b24287a5ac672289ccebf5ec303d3c0a85bc60bb7a748014d85179b51c7552ca93a70817ee3140442f92e23b"),
        255: x("f2783a56b5f0cac017424bbe7d29dc9cc45ea7a6050ef83c3284f5ad7bc889aab2cb46e6916a683b17b903b63e"),
        256: x("16bc024eb0af9037260c822d45fa786e3c259aab1b7a4a196a72c3e794e78446440ba42b531da44d3d36d0a042"),
    },
}
"""mode 2, kem_id 32, kdf_id 1, aead_id 2 of the vectors that RFC 9180 refers to."""
AES_128: dict[str, Any] = {
    "aead": 1,
    "key_bytes": 16,
    "skRm": x("fdea67cf831f1ca98d8e27b1f6abeb5b7745e9d35348b80fa407ff6958f9137e"),
    "skSm": x("dc4a146313cce60a278a5323d321f051c5707e9c45ba21a3479fecdf76fc69dd"),
    "skEm": x("ff4442ef24fbc3c1ff86375b0be1e77e88a0de1e79b30896d73411c5ff4c3518"),
    "pkRm": x("1632d5c2f71c2b38d0a8fcc359355200caa8b1ffdf28618080466c909cb69b2e"),
    "pkSm": x("8b0c70873dc5aecb7f9ee4e62406a397b350e57012be45cf53b7105ae731790b"),
    "enc": x("23fb952571a14a25e3d678140cd0e5eb47a0961bb18afcf85896e5453c312e76"),
    "shared_secret": x("2d6db4cf719dc7293fcbf3fa64690708e44e2bebc81f84608677958c0d4448a7"),
    "texts": {
        0: x("5fd92cc9d46dbf8943e72a07e42f363ed5f721212cd90bcfd072bfd9f44e06b80fd17824947496e21b680c141b"),
        1: x("d3736bb256c19bfa93d79e8f80b7971262cb7c887e35c26370cfed62254369a1b52e3d505b79dd699f002bc8ed"),
    },
}
"""RFC 9180, A.1.3."""
VECTORS = pytest.mark.parametrize("vector", [AES_256, AES_128], ids=["AES-256-GCM", "A.1.3"])
INFO = b"Ode on a Grecian Urn"
TEXT = b"Beauty is truth, truth beauty"


@VECTORS
def test_the_key_encapsulation_gives_what_the_rfc_says(vector: dict[str, Any]) -> None:
    recipient, sender, ephemeral = (
        X25519PrivateKey.from_private_bytes(vector[name]) for name in ("skRm", "skSm", "skEm")
    )
    assert sender.public_key().public_bytes_raw() == vector["pkSm"]
    enc, secret = hpke.encapsulate(vector["pkRm"], sender, ephemeral)
    assert (enc, secret) == (vector["enc"], vector["shared_secret"])
    assert hpke.decapsulate(recipient, vector["pkSm"], enc) == secret


@VECTORS
def test_its_texts_are_those_of_the_rfc(vector: dict[str, Any]) -> None:
    context = hpke.Context(vector["shared_secret"], INFO, aead=vector["aead"], key_bytes=vector["key_bytes"])
    for sequence, sealed in vector["texts"].items():
        assert context.seal(sequence, b"Count-%d" % sequence, TEXT) == sealed
        assert context.open(sequence, b"Count-%d" % sequence, sealed) == TEXT
    with pytest.raises(CannotOpen):
        context.open(1, b"Count-0", vector["texts"][0])


def test_a_point_of_small_order_is_refused() -> None:
    for enc, sender in ((bytes(32), AES_256["pkSm"]), (AES_256["enc"], bytes(32))):
        with pytest.raises(CannotOpen, match="keys"):
            hpke.decapsulate(X25519PrivateKey.generate(), sender, enc)


# --- messages ---------------------------------------------------------------------------------------------

GOLDEN = Path(__file__).parents[3] / "golden" / "kit"
SIGNING = bytes(range(32))
SIGNER = Signer(SIGNING)
VERIFIER = Verifier(Ed25519PrivateKey.from_private_bytes(SIGNING).public_key().public_bytes_raw())
AGGREGATOR = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
EDGE = X25519PrivateKey.from_private_bytes(bytes(range(2, 34)))
RECIPIENT = AGGREGATOR.public_key().public_bytes_raw()


def voucher_for(name: str = "7", key: X25519PrivateKey = EDGE) -> Voucher:
    return Voucher(name, key.public_key().public_bytes_raw(), frozenset({"train"}), 2_000_000_000)


VOUCHER = voucher_for().sign(SIGNER)
TOPIC = "fl/updates/7"


def sealer(name: str = "7", key: X25519PrivateKey = EDGE) -> Sealer:
    voucher = voucher_for(name, key).sign(SIGNER)
    return Sealer(key.private_bytes_raw(), voucher, RECIPIENT)


def opener() -> Opener:
    return Opener(AGGREGATOR.private_bytes_raw(), VERIFIER)


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_sealed_is_told_apart_and_comes_back(name: str) -> None:
    """Clause 9.10: JSON begins with ``{``, msgpack's maps with 0x80 to 0x8F, 0xDE or 0xDF."""
    topic, message = MESSAGES[name]
    payload, text = codec.encode(message), t.build("fl", topic)
    sealed = sealer().seal(text, payload)
    assert not is_sealed(payload)
    assert is_sealed(sealed)
    assert len(sealed) == len(payload) + SEAL_OVERHEAD
    assert opener().open("7", text, sealed).content == payload
    assert opener().open("7", text, memoryview(sealed).toreadonly()).content == payload


def test_no_order_is_needed_and_none_is_missed() -> None:
    """Clause 9.11: messages get lost, come twice, and in another order."""
    made, opening = sealer(), opener()
    sealed = [made.seal(TOPIC, b"%d" % number) for number in range(50)]
    assert len({one[-17:] for one in sealed}) == 50
    for number in itertools.chain(range(49, -1, -3), (7, 7, 8)):
        assert opening.open("7", TOPIC, sealed[number]).content == b"%d" % number


def test_the_same_text_is_never_the_same_twice() -> None:
    made = sealer()
    assert len({one[139:] for one in (made.seal(TOPIC, b"x" * 40) for _ in range(20))}) == 20
    assert sealer().seal(TOPIC, b"x" * 40)[2:34] != sealer().seal(TOPIC, b"x" * 40)[2:34]


def test_nothing_of_the_text_is_seen() -> None:
    text = b"pattern!" * 1000
    assert b"pattern!" not in sealer().seal(TOPIC, text)
    assert b"tern!pat" not in sealer().seal(TOPIC, text)


SEALED = Sealer(EDGE.private_bytes_raw(), VOUCHER, RECIPIENT).seal(TOPIC, b"hello")


@pytest.mark.parametrize("place", range(len(SEALED)))
def test_no_bit_of_it_can_be_changed(place: int) -> None:
    changed = SEALED[:place] + bytes([SEALED[place] ^ 0x40]) + SEALED[place + 1 :]
    opening = opener()
    with pytest.raises(CannotOpen):
        opening.open("7", TOPIC, changed)
    assert opening.open("7", TOPIC, SEALED).content == b"hello"


def test_it_is_of_one_account_on_one_topic_for_one_aggregator() -> None:
    """Clauses 9.11 and 9.12."""
    opening = opener()
    assert opening.open("7", TOPIC, SEALED) == (b"hello", voucher_for())
    with pytest.raises(CannotOpen, match="its key has no valid voucher for '8'"):
        opening.open("8", "fl/updates/8", SEALED)
    for topic in ("fl/updates/8", "fl/evaluations/7", "f/updates/7"):
        with pytest.raises(CannotOpen, match="seal"):
            opening.open("7", topic, SEALED)
    with pytest.raises(CannotOpen, match="seal"):
        Opener(X25519PrivateKey.generate().private_bytes_raw(), VERIFIER).open("7", TOPIC, SEALED)


def test_another_key_cannot_speak_for_an_account() -> None:
    """Clause 9.12: a broker's operator knows voucher and public key of everybody, and the aggregator's key."""
    forger = X25519PrivateKey.generate()
    with_own_key = Sealer(forger.private_bytes_raw(), VOUCHER, RECIPIENT).seal(TOPIC, b"poison")
    with pytest.raises(CannotOpen, match="no valid voucher"):
        opener().open("7", TOPIC, with_own_key)
    with_its_key = with_own_key[:34] + EDGE.public_key().public_bytes_raw() + with_own_key[66:]
    with pytest.raises(CannotOpen, match="seal"):
        opener().open("7", TOPIC, with_its_key)
    accomplice = sealer("8", forger).seal("fl/updates/8", b"poison")
    assert opener().open("8", "fl/updates/8", accomplice).content == b"poison"
    with pytest.raises(CannotOpen):
        opener().open("7", TOPIC, accomplice)


@given(st.binary(max_size=400), st.booleans())
def test_whatever_the_bytes_it_is_refused_and_nothing_else_happens(data: bytes, begins: bool) -> None:
    with pytest.raises(CannotOpen):
        opener().open("7", TOPIC, (SEALED[:139] if begins else b"") + data)


def test_another_version_is_named() -> None:
    with pytest.raises(CannotOpen, match="version: 2, expected 1"):
        opener().open("7", TOPIC, SEALED[:1] + b"\2" + SEALED[2:])


def test_what_is_remembered_is_bounded() -> None:
    opening = Opener(AGGREGATOR.private_bytes_raw(), VERIFIER, max_contexts=3)
    first = sealer().seal(TOPIC, b"first")
    assert opening.open("7", TOPIC, first).content == b"first"
    for number in range(10):
        assert opening.open("7", TOPIC, sealer().seal(TOPIC, b"%d" % number)).content == b"%d" % number
    assert opening._context.cache_info().currsize == 3
    assert opening.open("7", TOPIC, first).content == b"first", "forgotten is not refused"


def test_a_packet_has_room_for_the_seal() -> None:
    """Clause 9.10: an update is cut to what the broker takes before it is sealed."""
    topic = t.build("/".join(["x" * 50] * 5), t.UpdatesTopic("c" * 64))
    header = 5 + 2 + len(topic) + 2 + 1
    assert header + SEAL_OVERHEAD <= upload.PACKET_OVERHEAD


@pytest.mark.parametrize("name", ["register-second", "update"])
def test_the_golden_bytes(name: str) -> None:
    """Made with the keys at the head of this section and an ephemeral one, as an aggregator has to open them."""
    topic, message = MESSAGES[name]
    text, path = t.build("fl", topic), GOLDEN / f"{name}.sealed"
    ephemeral = X25519PrivateKey.from_private_bytes(bytes(range(3, 35)))
    client: str = getattr(topic, "client", "")
    voucher = voucher_for(client).sign(SIGNER)
    made = Sealer(EDGE.private_bytes_raw(), voucher, RECIPIENT, ephemeral=ephemeral)
    made.seal(text, b"sequence 0")
    sealed = made.seal(text, codec.encode(message))
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_bytes(sealed)
    assert sealed == path.read_bytes()
    assert codec.decode(topic, opener().open(client, text, sealed).content) == message


def test_no_key_is_shown() -> None:
    shown = repr(vars(sealer())) + repr(vars(opener())) + repr(opener()) + repr(sealer())
    assert repr(EDGE.private_bytes_raw()) not in shown
    assert EDGE.private_bytes_raw().hex() not in shown
    assert repr(AGGREGATOR.private_bytes_raw()) not in shown
