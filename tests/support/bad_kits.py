"""Changes that make a kit invalid, and what is said of each."""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

from fl_shared.security.kit import Kit

Members = dict[str, bytes]


def members_of(kit: Kit) -> Members:
    with zipfile.ZipFile(io.BytesIO(kit.encode())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(members: Members, *, twice: str | None = None, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in members.items():
            archive.writestr(name, content)
        if twice is not None:
            archive.writestr(twice, members[twice])
    return file.getvalue()


def saying(**changes: Any) -> Callable[[Members], Members]:
    """With other values in kit.json; None takes the member away."""

    def change(members: Members) -> Members:
        said = {**json.loads(members["kit.json"]), **changes}
        text = json.dumps({name: value for name, value in said.items() if value is not None})
        return {**members, "kit.json": text.encode()}

    return change


def having(**changes: bytes | None) -> Callable[[Members], Members]:
    """With other members: ``ca``, ``cert``, ``key`` or ``json``; None takes it away."""
    names = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem", "json": "kit.json"}

    def change(members: Members) -> Members:
        changed = {**members, **{names[short]: content for short, content in changes.items()}}
        return {name: content for name, content in changed.items() if content is not None}

    return change


SEVENTY_THREE = "A" * 98 + "=="
SIXTY_FOUR = "A" * 86 + "=="
SHORT, THIRTY_TWO = "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
NO_POINT = "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
OLD = "made by an older version; get new kits for all: fl-aggregator provision rotate --all --force"
BAD: list[tuple[str, Callable[[Members], Members], str]] = [
    ("no kit.json", having(json=None), r"kit\.json is missing"),
    ("no ca.pem", having(ca=None), r"ca\.pem is missing"),
    ("no key.pem", having(key=None), r"key\.pem is missing"),
    ("no cert.pem", having(cert=None), r"cert\.pem is missing"),
    ("neither", having(cert=None, key=None), "neither cert.pem and key.pem nor user and password"),
    ("not JSON", having(json=b"{"), r"kit\.json: "),
    ("not an object", having(json=b"[]"), r"kit\.json: "),
    ("not UTF-8", having(json=b"\xff\xfe"), r"kit\.json: "),
    ("of the version before", saying(format=1), f"format: .*1, {OLD}"),
    ("of a version to come", saying(format=3), "format: .*3, made by a newer version; expected 2"),
    ("no version", saying(format=None), "format: Field required"),
    ("key of small order", saying(sealing_public=THIRTY_TWO), "sealing_public: .*small order"),
    ("signing key of small order", saying(signing_public=THIRTY_TWO), "signing_public: .*small order"),
    ("enrolment key of small order", saying(enrolment_public=THIRTY_TWO), "enrolment_public: .*small order"),
    ("enrolment key off the curve", saying(enrolment_public=NO_POINT), "enrolment_public: .*not a point of the curve"),
    ("short enrolment key", saying(enrolment_public=SHORT), "enrolment_public: .*32"),
    ("no enrolment key", saying(enrolment_public=None), "enrolment_public: Field required"),
    ("no name", saying(name=None), "name: Field required"),
    ("name with a slash", saying(name="a/b"), "name: "),
    ("name with a newline", saying(name="7\n"), "name: "),
    ("another's name", saying(name="8"), r"cert\.pem: is for \['7'\], expected the kit's name, '8'"),
    ("no roles", saying(roles=[]), "roles: "),
    ("unknown role", saying(roles=["admin"]), r"roles\.0: "),
    ("plain broker", saying(broker="mqtt://broker:1883"), "broker: .*expected mqtts://host:port"),
    ("broker without a host", saying(broker="mqtts://:8883"), "broker: .*expected mqtts://host:port"),
    ("broker with a path", saying(broker="mqtts://broker:1/x"), "broker: .*expected mqtts://host:port"),
    ("broker with port 99999", saying(broker="mqtts://broker:99999"), "broker: .*expected mqtts://host:port"),
    ("broker with a password", saying(broker="mqtts://a:b@broker:1"), "broker: "),
    ("prefix with a wildcard", saying(prefix="fl/#"), "prefix: .*is not a valid topic prefix"),
    ("unknown member", saying(extra=1), "extra: "),
    ("short signing key", saying(signing_public=SHORT), "signing_public: .*32"),
    ("no sealing key", saying(sealing_public=None), "sealing_public: Field required"),
    ("no pin of the broker's key", saying(broker_pin=None), "broker_pin: Field required"),
    ("a short pin", saying(broker_pin=SHORT), "broker_pin: .*32"),
    ("no base64", saying(sealing_public="§" * 44), "sealing_public: "),
    ("the aggregator's key", saying(signing_private=THIRTY_TWO), "expected signing_private only in"),
    ("another sealing key", saying(sealing_private=THIRTY_TWO), "voucher does not match the sealing_private of '7'"),
    ("no sealing key of its own", saying(sealing_private=None), "expected both sealing_private and voucher"),
    ("no voucher", saying(voucher=None), "expected both sealing_private and voucher"),
    ("another's voucher", saying(voucher=SEVENTY_THREE), "voucher does not match the sealing_private of '7'"),
    ("a short voucher", saying(voucher=THIRTY_TWO), "voucher: .*73"),
    ("other roles than its voucher's", saying(roles=["evaluate", "predict"]), "voucher is for predict, train, exp"),
    ("another's member key", saying(member_private=THIRTY_TWO), "member_voucher does not match the member_private"),
    ("a short member key", saying(member_private=SHORT), "member_private: .*32"),
    ("no member key", saying(member_private=None), "expected member_private, member_until and member_voucher with"),
    ("a member's later end", saying(member_until=2**40), "member_voucher does not match the member_private of '7'"),
    ("a member's negative end", saying(member_until=-1), "member_until: "),
    ("no member's end", saying(member_until=None), "expected member_private, member_until and member_voucher with"),
    ("another member voucher", saying(member_voucher=SIXTY_FOUR), "member_voucher does not match the member_private"),
    ("a short member voucher", saying(member_voucher=SHORT), "member_voucher: .*64"),
    ("no member voucher", saying(member_voucher=None), "expected member_private, member_until and member_voucher with"),
    ("no group", saying(predict_group=None), "expected predict_group with the role predict"),
    ("a group for who does not predict", saying(roles=["train"]), "expected predict_group with the role predict"),
    ("a group with a slash", saying(predict_group="a/b"), "predict_group: "),
    ("the role, no keys", saying(roles=["aggregator"], predict_group=None), "private keys are missing"),
    ("ca.pem is no PEM", having(ca=b"hello"), r"ca\.pem: not a certificate in PEM"),
    ("ca.pem is broken", having(ca=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), r"ca\.pem: not"),
    ("cert.pem is no PEM", having(cert=b""), r"cert\.pem: not a certificate in PEM"),
    ("key.pem is no PEM", having(key=b"hello"), r"key\.pem: not a private key"),
    ("ca.pem is no authority", lambda m: {**m, "ca.pem": m["cert.pem"]}, r"ca\.pem: .*not an authority's"),
    ("another file", lambda m: {**m, "README": b"x"}, r"contains 'README'; expected only ca\.pem, cert\.pem"),
    ("a way out", lambda m: {**m, "../../etc/cron.d/x": b"x"}, r"contains '\.\./\.\./etc/cron\.d/x'"),
    ("a folder", lambda m: {**m, "kit.json/": b""}, "contains 'kit.json/'"),
]  # fmt: skip
