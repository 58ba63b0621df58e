"""The keys of an edge in a run, and their certificate."""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_shared.masking.run_keys import (
    BadRunKeys,
    MemberCredential,
    RunKeys,
    check_keys,
    parse_keys,
)
from fl_shared.security.vouchers import member_bytes

NOW, UNTIL = 1_800_000_000, 1_900_000_000
P = 2**255 - 19


@dataclass
class Site:
    """An enrolment, which certifies an edge."""

    enrolment: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        return self.enrolment.public_key().public_bytes_raw()

    def credential(self, client: str, until: int = UNTIL) -> MemberCredential:
        member = Ed25519PrivateKey.generate()
        public = member.public_key().public_bytes_raw()
        voucher = self.enrolment.sign(member_bytes(client, public, until))
        return MemberCredential(member.private_bytes_raw(), until, voucher)


@pytest.fixture
def site() -> Site:
    return Site(Ed25519PrivateKey.generate())


def test_keys_survive_the_wire_and_the_disk(site: Site) -> None:
    keys = RunKeys.generate(os.urandom)
    again = RunKeys.from_private(*keys.private_bytes())
    text = keys.announce("r", "e1", site.credential("e1"))
    assert again.public == keys.public
    assert len(text) == 310
    found = parse_keys(text)
    assert (found.mask, found.agree) == (keys.public.mask, keys.public.agree)
    check_keys(found, "r", "e1", site.public, NOW)


def test_without_a_kit_there_is_no_certificate() -> None:
    text = RunKeys.generate(os.urandom).announce("r", "e1", None)
    assert len(text) == 86
    assert parse_keys(text).certificate is None
    check_keys(parse_keys(text), "r", "e1", None, NOW)


def test_what_is_not_certified_is_refused(site: Site) -> None:
    keys, credential = RunKeys.generate(os.urandom), site.credential("e1")
    plain, good = parse_keys(keys.announce("r", "e1", None)), parse_keys(keys.announce("r", "e1", credential))
    other = RunKeys.generate(os.urandom).public
    stranger = Site(Ed25519PrivateKey.generate()).public
    for given, run, client, enrolment, now, said in (
        (plain, "r", "e1", site.public, NOW, "not certified, expected a certificate"),
        (good, "r", "e2", site.public, NOW, "not certified this member key for e2"),
        (good, "r", "e1", stranger, NOW, "not certified this member key for e1"),
        (good, "r", "e1", b"\xff" * 32, NOW, "not certified this member key for e1"),
        (good, "s", "e1", site.public, NOW, "has not signed these keys for run s"),
        (replace(good, mask=other.mask), "r", "e1", site.public, NOW, "has not signed these keys"),
        (replace(good, agree=other.agree), "r", "e1", site.public, NOW, "has not signed these keys"),
        (good, "r", "e1", site.public, UNTIL + 1, "the certificate of e1 has expired"),
    ):
        with pytest.raises(BadRunKeys, match=said):
            check_keys(given, run, client, enrolment, now)
    assert good.certificate is not None
    longer = replace(good, certificate=replace(good.certificate, until=UNTIL + 9))
    with pytest.raises(BadRunKeys, match="not certified this member key"):
        check_keys(longer, "r", "e1", site.public, NOW)
    check_keys(good, "r", "e1", site.public, UNTIL)


def _text(mask: bytes) -> str:
    return urlsafe_b64encode(mask + bytes(32)).rstrip(b"=").decode()


def test_text_that_is_no_keys_is_refused(site: Site) -> None:
    good = RunKeys.generate(os.urandom).announce("r", "e1", site.credential("e1"))
    assert len(urlsafe_b64decode(good + "==")) == 232
    for wrong in (
        "",
        good[:-1],
        good + "A",
        good[:87],
        good[:85],
        good[:85] + "_",
        "é" * 86,
        good[:40] + "=" * 46,
    ):
        with pytest.raises(ValueError, match="expected 86 or 310 of canonical base64url"):
            parse_keys(wrong)


@pytest.mark.parametrize(
    "mask",
    [
        0,
        1,
        P - 1,
        P,
        P + 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        9 + 2**255,
    ],
)
def test_a_key_of_small_order_or_in_another_form_is_refused(mask: int) -> None:
    """The points of small order, from https://cr.yp.to/ecdh.html, and two forms of others."""
    with pytest.raises(ValueError, match="no canonical X25519 key of large order"):
        parse_keys(_text(mask.to_bytes(32, "little")))
    parse_keys(_text((9).to_bytes(32, "little")))
