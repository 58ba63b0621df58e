"""The enrolment key vouches for members, and nobody else has it or can do without it."""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from base64 import b64decode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fl_aggregator.tools.provision import kits
from fl_aggregator.tools.provision.accounts import BrokerLocation
from fl_shared.errors import UserError
from fl_shared.masking.run_keys import BadRunKeys, MemberCredential, RunKeys, check_keys, parse_keys
from fl_shared.security.kit import Kit
from fl_shared.security.revocations import FILE_NAME
from fl_shared.security.signatures import Signer, Verifier
from fl_shared.security.vouchers import Member
from tests.support.provisioning import KITS, PLACE, WITH_PASSWORDS, begin, check_whole

MEMBERS = {"edge-0.zip", "edge-1.zip"}
ENCODED = re.compile(rb"[A-Za-z0-9+/]{43,}")


def contents(path: Path) -> list[bytes]:
    """The content of a file; of a kit, those of its members."""
    if path.suffix != ".zip":
        return [path.read_bytes()]
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name) for name in archive.namelist()]


def possible_keys(content: bytes) -> Iterator[bytes]:
    """All that may be a private key: each 32 bytes in a row, of the content and of what is base64 or hex in it.

    Ed25519 takes any 32 bytes, so this has every key of whatever kind, also inside PEM.
    """
    texts = [content]
    for encoded in ENCODED.findall(content.replace(b"\n", b"")):
        with contextlib.suppress(ValueError):
            texts.append(b64decode(encoded + b"=" * (-len(encoded) % 4)))
        with contextlib.suppress(ValueError):
            texts.append(bytes.fromhex(encoded.decode()))
    for text in texts:
        yield from (text[start : start + 32] for start in range(len(text) - 31))


def publics(paths: list[Path]) -> dict[bytes, bytes]:
    """The Ed25519 public key of each possible private key in these files, and that key."""
    found = {key for path in paths for content in contents(path) for key in possible_keys(content)}
    return {Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw(): key for key in found}


def is_invented(key: bytes, enrolment: bytes) -> bool:
    """Whether ``key`` makes a voucher of a new member that others accept."""
    member = Member("invented", bytes(32), 2**40)
    return member.is_voucher(member.sign(Signer(key)), Verifier(enrolment))


@pytest.mark.parametrize("place", [PLACE, WITH_PASSWORDS], ids=["certificates", "passwords"])
def test_nothing_that_leaves_the_authority_makes_a_members_voucher(
    tmp_path: Path, place: BrokerLocation
) -> None:
    """P1 in docs/privacy.md."""
    made = begin(tmp_path, place)
    enrolment = Kit.read(tmp_path / "aggregator.zip").enrolment_public
    delivered = [*tmp_path.glob("*.zip"), tmp_path / FILE_NAME, *made.broker_directory.iterdir()]
    found = publics(delivered)
    signing = Kit.read(tmp_path / "aggregator.zip").signing_public
    assert signing in found, "it finds the keys that are there"
    assert not is_invented(found[signing], enrolment)
    assert enrolment not in found
    kept = publics([tmp_path / "authority" / "enrolment.pem"])
    assert is_invented(kept[enrolment], enrolment), "so it does where the key is"
    assert sorted(path.name for path in tmp_path.iterdir() if path not in delivered) == [
        ".lock", "accounts.json", "authority", "broker",
    ]  # fmt: skip


@pytest.mark.parametrize("place", [PLACE, WITH_PASSWORDS], ids=["certificates", "passwords"])
def test_who_trains_gets_a_key_and_a_voucher_and_rotate_renews_them(
    tmp_path: Path, place: BrokerLocation
) -> None:
    """P2 in docs/privacy.md."""
    begin(tmp_path, place)
    before = {name: Kit.read(tmp_path / name) for name in KITS}
    assert {name for name, kit in before.items() if kit.member_private is not None} == MEMBERS
    assert len({before[name].member_private for name in MEMBERS}) == len(MEMBERS)
    with kits.open_provision(tmp_path) as made:
        issued = made.register.accounts[-1].issued
        until = {before[name].member_until for name in MEMBERS}
        assert until == {int((issued + timedelta(days=30)).timestamp())}
        made._now = issued + timedelta(days=9)
        made.rotate(["1"], force=True)
        made.add([("2", ("train",)), ("3", ("evaluate",))], force=False)
    check_whole(tmp_path)
    renewed = Kit.read(tmp_path / "edge-1.zip")
    assert renewed.member_private != before["edge-1.zip"].member_private
    assert renewed.member_until == int((issued + timedelta(days=39)).timestamp())
    assert Kit.read(tmp_path / "edge-2.zip").member_private is not None
    assert Kit.read(tmp_path / "edge-3.zip").member_private is None


def test_only_rotating_all_replaces_the_enrolment_key(tmp_path: Path) -> None:
    made = begin(tmp_path)
    first = Kit.read(tmp_path / "edge-0.zip").enrolment_public
    everyone = [one.name for one in made.register.accounts]
    made.rotate(["aggregator"], force=True)
    made.rotate(everyone, force=True, new_broker=True)
    check_whole(tmp_path)
    assert Kit.read(tmp_path / "edge-0.zip").enrolment_public == first
    made.rotate(everyone, force=True, new_keys=True)
    check_whole(tmp_path)
    assert Kit.read(tmp_path / "edge-0.zip").enrolment_public != first, "old members count no longer"


def test_an_enrolment_key_that_is_lost_changes_nothing_until_all_get_new_kits(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "authority" / "enrolment.pem").unlink()
    before = (tmp_path / "accounts.json").read_bytes()
    with kits.open_provision(tmp_path) as made:
        with pytest.raises(UserError, match=r"no enrolment\.pem: .* provision rotate --all --force"):
            made.add([("2", ("train",))], force=False)
        with pytest.raises(UserError, match=r"no enrolment\.pem: "):
            made.rotate(["0"], force=True)
        assert (tmp_path / "accounts.json").read_bytes() == before
        made.revoke(["1"])
    with kits.open_provision(tmp_path) as made:
        made.rotate([one.name for one in made.register.accounts], force=True, new_keys=True)
    check_whole(tmp_path)


def test_run_keys_that_a_kit_has_certified_convince_the_aggregator_and_other_edges(tmp_path: Path) -> None:
    begin(tmp_path / "ours")
    begin(tmp_path / "others")
    kit = Kit.read(tmp_path / "ours" / "edge-1.zip")
    assert kit.member_private is not None
    assert kit.member_until is not None
    assert kit.member_voucher is not None
    credential = MemberCredential(kit.member_private, kit.member_until, kit.member_voucher)
    keys = parse_keys(RunKeys.generate(os.urandom).announce("run-1", kit.name, credential))
    for name in ("aggregator.zip", "edge-0.zip"):
        check_keys(keys, "run-1", "1", Kit.read(tmp_path / "ours" / name).enrolment_public, kit.member_until)
        foreign = Kit.read(tmp_path / "others" / name).enrolment_public
        with pytest.raises(BadRunKeys, match="the enrolment key has not certified"):
            check_keys(keys, "run-1", "1", foreign, kit.member_until)
