"""`provision` makes an authority, kits and the files for the broker, and refuses what does not fit."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fl_aggregator.tools.provision import authority, broker_files, kits
from fl_aggregator.tools.provision.accounts import BrokerLocation, hash_password
from fl_shared.errors import UserError
from fl_shared.security.kit import Kit
from fl_shared.security.vouchers import Voucher
from tests.support.provisioning import (
    KITS,
    PLACE,
    WITH_PASSWORDS,
    acl,
    begin,
    certificate,
    check_whole,
    is_password,
    revoked,
    serial,
)


def voucher_in(path: Path) -> Voucher:
    voucher = Kit.read(path)._voucher()
    assert voucher is not None
    return voucher


@pytest.mark.parametrize("place", [PLACE, WITH_PASSWORDS], ids=["certificates", "passwords"])
def test_it_makes_a_kit_for_everybody_and_files_for_the_broker(tmp_path: Path, place: BrokerLocation) -> None:
    out = tmp_path / "kits"
    begin(out, place)
    check_whole(out)
    assert {path.name for path in out.glob("*.zip")} == KITS
    assert all(path.stat().st_size <= 64 * 2**10 for path in out.glob("*.zip")), "for a small device"
    wanted = {"ca.pem", "broker.pem", "broker.key", "acl", "mosquitto.conf", "mosquitto-2.1.conf"}
    assert {path.name for path in (out / "broker").iterdir()} == wanted | {
        "passwd" if place.passwords else "crl.pem"
    }
    edge, aggregator = Kit.read(out / "edge-1.zip"), Kit.read(out / "aggregator.zip")
    assert (edge.name, edge.roles, edge.broker) == ("1", ("train", "predict"), "mqtts://broker.example:8883")
    assert edge.signing_private is None
    asker = Kit.read(out / "asker-web.zip")
    assert (asker.sealing_private, asker.voucher) == (None, None), (
        "an asker has nothing to say to the aggregator"
    )
    keys = {Kit.read(out / name).sealing_private for name in KITS - {"asker-web.zip"}}
    assert None not in keys
    assert len(keys) == len(KITS) - 1, "each has a key of its own to seal with"
    assert aggregator.signing_private is not None
    assert aggregator.sealing_private is not None
    assert aggregator.signing_public == edge.signing_public
    assert Kit.read(out / "operator.zip").signing_private is None
    if place.passwords:
        assert (edge.user, edge.cert, edge.key) == ("1", None, None)
        assert edge.password != Kit.read(out / "edge-0.zip").password
    else:
        assert (edge.user, edge.password) == (None, None)


@pytest.mark.parametrize("place", [PLACE, WITH_PASSWORDS], ids=["certificates", "passwords"])
def test_a_voucher_has_the_accounts_roles_and_is_renewed_by_rotate(
    tmp_path: Path, place: BrokerLocation
) -> None:
    begin(tmp_path, place)
    with kits.open_provision(tmp_path) as made:
        issued = made.register.accounts[-1].issued
        vouchers = {name: voucher_in(tmp_path / f"{name}.zip") for name in ("operator", "edge-0", "edge-1")}
        assert {name: set(one.roles) for name, one in vouchers.items()} == {
            "operator": {"operator"}, "edge-0": {"train"}, "edge-1": {"train", "predict"},
        }  # fmt: skip
        assert {one.expires for one in vouchers.values()} == {int((issued + timedelta(days=30)).timestamp())}
        later = issued + timedelta(days=9)
        made._now = later
        made.rotate(["1"], force=True)
    renewed = voucher_in(tmp_path / "edge-1.zip")
    assert renewed.public != vouchers["edge-1"].public
    assert renewed.roles == vouchers["edge-1"].roles
    assert renewed.expires == int((later + timedelta(days=30)).timestamp())


def test_its_certificates_say_who_and_for_what(tmp_path: Path) -> None:
    made = begin(tmp_path / "kits")
    ca = certificate((made.broker_directory / "ca.pem").read_bytes())
    broker = certificate((made.broker_directory / "broker.pem").read_bytes())
    edge = certificate(Kit.read(made.out / "edge-0.zip").cert or b"")
    assert edge.subject.rfc4514_string() == "CN=0"
    for one, purpose in ((broker, ExtendedKeyUsageOID.SERVER_AUTH), (edge, ExtendedKeyUsageOID.CLIENT_AUTH)):
        one.verify_directly_issued_by(ca)
        assert list(one.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [purpose]
        assert one.not_valid_after_utc - one.not_valid_before_utc == timedelta(days=31)
        assert one.not_valid_after_utc < ca.not_valid_after_utc
        usage = one.extensions.get_extension_for_class(x509.KeyUsage).value
        assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign) == (True, False, False)
        issuer = one.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        assert issuer == ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.example"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3", "::1"]
    listed = x509.load_pem_x509_crl((made.broker_directory / "crl.pem").read_bytes())
    # An expired list would lock everybody out.
    assert listed.next_update_utc == ca.not_valid_after_utc


def test_the_two_configurations_differ_in_the_plug_ins_of_2_1_only(tmp_path: Path) -> None:
    for place, settings in ((PLACE, ["acl_file"]), (WITH_PASSWORDS, ["acl_file", "password_file"])):
        old = broker_files.mosquitto_conf(place, tmp_path).splitlines()
        new = broker_files.mosquitto_conf(place, tmp_path, plugins="/usr/lib").splitlines()
        assert {line.split()[0] for line in old if line not in new} == set(settings)
        assert [line.split()[0] for line in new if line not in old] == [
            word for one in settings for word in ("global_plugin", f"plugin_opt_{one}")
        ]
    elsewhere = PLACE.model_copy(update={"broker_dir": "/mosquitto/config/"})
    assert "cafile /mosquitto/config/ca.pem\n" in broker_files.mosquitto_conf(elsewhere, tmp_path)
    assert str(tmp_path) not in broker_files.mosquitto_conf(elsewhere, tmp_path)


def test_a_password_is_stored_as_mosquitto_does(tmp_path: Path) -> None:
    """The right password is let in by a real broker in tests/integration/test_acl.py."""
    stored = hash_password("word", b"0123456789ab")
    assert re.fullmatch(r"\$7\$101\$MDEyMzQ1Njc4OWFi\$[A-Za-z0-9+/]{86}==", stored)
    assert is_password("word", stored)
    assert not is_password("Word", stored)
    assert hash_password("word") != hash_password("word")


@pytest.mark.parametrize("place", [PLACE, WITH_PASSWORDS], ids=["certificates", "passwords"])
def test_accounts_come_and_go(tmp_path: Path, place: BrokerLocation) -> None:
    out = tmp_path / "kits"
    begin(out, place)
    before = {path.name: path.read_bytes() for path in out.glob("*.zip")}
    ward = out / "edge-ward-3.zip"
    with kits.open_provision(out) as made:
        assert made.add([("ward-3", ("train", "evaluate"))], force=False).kits == [ward]
        check_whole(out)
        assert "topic write fl/updates/ward-3\n" in acl(out)
        old = Kit.read(ward)
        with pytest.raises(UserError, match="already exists; --force replaces it"):
            made.rotate(["ward-3"], force=False)
        made.rotate(["ward-3"], force=True)
        check_whole(out)
        assert Kit.read(ward) != old
        if not place.passwords:
            assert serial(old) in revoked(out)
        new = Kit.read(ward)
        assert made.revoke(["ward-3"]).revoked == ["ward-3"]
        check_whole(out)
        assert not ward.exists()
        assert "ward-3" not in acl(out)
        if not place.passwords:
            assert {serial(old), serial(new)} <= revoked(out)
        made.add([("ward-3", ("train",))], force=False)
        check_whole(out)
    untouched = {name: (out / name).read_bytes() for name in before}
    assert untouched == before


def test_a_kit_that_was_taken_away_is_not_missed(tmp_path: Path) -> None:
    """It is where it belongs: on its device."""
    begin(tmp_path)
    (tmp_path / "edge-0.zip").unlink()
    with kits.open_provision(tmp_path) as made:
        made.add([("2", ("train",))], force=False)
        assert not (tmp_path / "edge-0.zip").exists()
        assert revoked(tmp_path) == set()
        made.rotate(["0"], force=False)
    check_whole(tmp_path)


def test_the_brokers_key_is_renewed_with_all_kits_which_name_it(tmp_path: Path) -> None:
    made = begin(tmp_path)
    before = certificate((made.broker_directory / "broker.pem").read_bytes())
    old = {serial(Kit.read(tmp_path / name)) for name in KITS}
    made.rotate([one.name for one in made.register.accounts], force=True, new_broker=True)
    check_whole(tmp_path)
    assert revoked(tmp_path) == {before.serial_number} | old
    after = certificate((made.broker_directory / "broker.pem").read_bytes())
    assert after.public_key() != before.public_key()


def test_a_broker_whose_files_were_moved_away_keeps_its_key(tmp_path: Path) -> None:
    """Kits that are made later must name the key that the broker has."""
    made = begin(tmp_path)
    pin = Kit.read(tmp_path / "edge-0.zip").broker_pin
    for file in ("broker.pem", "broker.key"):
        (made.broker_directory / file).unlink()
    with kits.open_provision(tmp_path) as again:
        again.add([("late", ("train",))], force=False)
    assert Kit.read(tmp_path / "edge-late.zip").broker_pin == pin
    assert not (made.broker_directory / "broker.key").exists()


def test_a_new_kit_of_the_aggregator_keeps_its_signature_unless_all_are_renewed(tmp_path: Path) -> None:
    made = begin(tmp_path)
    first = Kit.read(tmp_path / "aggregator.zip")
    made.rotate(["aggregator"], force=True)
    check_whole(tmp_path)
    second = Kit.read(tmp_path / "aggregator.zip")
    assert second.key != first.key
    assert second.signing_private == first.signing_private
    made.rotate([one.name for one in made.register.accounts], force=True, new_keys=True)
    check_whole(tmp_path)
    third = Kit.read(tmp_path / "aggregator.zip")
    assert third.signing_private != first.signing_private
    assert third.sealing_private != first.sealing_private
    assert Kit.read(tmp_path / "edge-0.zip").signing_public == third.signing_public
    assert (
        authority.Authority.open(tmp_path / "authority").signing.private_bytes_raw() == third.signing_private
    )


def test_who_predicts_does_so_in_a_group_that_only_they_know(tmp_path: Path) -> None:
    made = begin(tmp_path)
    first = Kit.read(tmp_path / "edge-1.zip").predict_group
    assert first is not None
    assert len(first) == 32
    assert Kit.read(tmp_path / "edge-0.zip").predict_group is None
    assert Kit.read(tmp_path / "aggregator.zip").predict_group is None
    made.add([("late", ("predict",))], force=False)
    assert Kit.read(tmp_path / "edge-late.zip").predict_group == first
    made.rotate(["1"], force=True)
    assert Kit.read(tmp_path / "edge-1.zip").predict_group == first, (
        "the others would not hear of another one"
    )
    made.rotate([one.name for one in made.register.accounts], force=True, new_keys=True)
    second = Kit.read(tmp_path / "edge-1.zip").predict_group
    assert second not in (None, first)
    assert Kit.read(tmp_path / "edge-late.zip").predict_group == second
    files = [path for path in made.broker_directory.iterdir() if path.is_file()]
    assert not any(str(second).encode() in path.read_bytes() for path in files), "the broker need not know it"


def test_it_does_not_begin_twice(tmp_path: Path) -> None:
    begin(tmp_path)
    before = (tmp_path / "accounts.json").read_bytes()
    with pytest.raises(UserError, match="already has 5 accounts"):
        begin(tmp_path, force=True)
    assert (tmp_path / "accounts.json").read_bytes() == before


def test_it_does_not_replace_kits_of_another(tmp_path: Path) -> None:
    (tmp_path / "edge-1.zip").write_bytes(b"somebody's")
    with pytest.raises(UserError, match=r"edge-1\.zip already exists; --force replaces it"):
        begin(tmp_path)
    assert (tmp_path / "edge-1.zip").read_bytes() == b"somebody's"
    assert not (tmp_path / "edge-0.zip").exists()
    begin(tmp_path, force=True)
    check_whole(tmp_path)


def test_names_that_are_wrong_change_nothing(tmp_path: Path) -> None:
    begin(tmp_path)
    before = (tmp_path / "accounts.json").read_bytes()
    with kits.open_provision(tmp_path) as made:
        mistakes: list[tuple[Callable[[], object], str]] = [
            (lambda: made.add([("0", ("train",))], force=True), "'0' already has an account"),
            (lambda: made.add([("2", ("train",)), ("2", ("train",))], force=True), "given twice"),
            (lambda: made.rotate(["0", "nobody"], force=True), "'nobody' has no account"),
            (lambda: made.revoke(["0", "nobody"]), "'nobody' has no account"),
            (lambda: made.revoke(["aggregator"]), "cannot be revoked"),
        ]
        for do, said in mistakes:
            with pytest.raises(UserError, match=said):
                do()
    assert (tmp_path / "accounts.json").read_bytes() == before
    check_whole(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("accounts.json", b"{", "accounts.json: .*as provision wrote it"),
        ("accounts.json", b'{"format": 2}', "accounts.json: "),
        ("authority/ca.key", None, "ca.key: No such file"),
        ("authority/ca.pem", b"x", "expected the PEM files as provision wrote them"),
        ("authority/signing.key", b"x", "expected the PEM files as provision wrote them"),
        ("authority/enrolment.pem", b"x", "expected the PEM files as provision wrote them"),
    ],
)
def test_a_directory_that_is_damaged_is_named(
    tmp_path: Path, file: str, content: bytes | None, said: str
) -> None:
    begin(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=said), kits.open_provision(tmp_path):
        pass
