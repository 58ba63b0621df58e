"""``fl-aggregator provision``: what it makes, what it refuses, and that it can be interrupted anywhere."""

from __future__ import annotations

import fcntl
import json
import os
import re
import ssl
import stat
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from fl_aggregator.tools.provision import accounts, authority, broker_files, kits
from fl_aggregator.tools.provision.accounts import AccountRegister, BrokerLocation, hash_password
from fl_aggregator.tools.provision.kits import Provision
from fl_shared.errors import UserError
from fl_shared.security import kit as kit_module
from fl_shared.security.kit import AccountRole, Kit
from fl_shared.system import files

PLACE = BrokerLocation(
    hosts=("broker.example", "10.1.2.3", "::1"),
    port=8883,
    prefix="fl",
    passwords=False,
    days=30,
    broker_dir=None,
)
WITH_PASSWORDS = PLACE.model_copy(update={"passwords": True})
THREE: list[tuple[str, tuple[AccountRole, ...]]] = [
    ("0", ("train",)),
    ("1", ("train", "predict")),
    ("web", ("asker",)),
]
KITS = {"aggregator.zip", "operator.zip", "edge-0.zip", "edge-1.zip", "asker-web.zip"}


def is_password(password: str, stored: str) -> bool:
    """Whether ``stored`` was made from ``password`` by `hash_password`: with the salt that stands in it."""
    return hash_password(password, b64decode(stored.split("$")[3])) == stored


def begin(out: Path, place: BrokerLocation = PLACE, *, force: bool = False) -> Provision:
    return kits.create_provision(out, place, THREE, force=force)[0]


def certificate(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def serial(kit: Kit) -> int:
    assert kit.cert is not None
    return certificate(kit.cert).serial_number


def revoked(out: Path) -> set[int]:
    listed = x509.load_pem_x509_crl((out / "broker" / "crl.pem").read_bytes())
    return {one.serial_number for one in listed}


def acl(out: Path) -> str:
    return (out / "broker" / "acl").read_text()


def passwords(out: Path) -> dict[str, str]:
    lines = (out / "broker" / "passwd").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


def check_whole(out: Path) -> None:
    """Everything fits together: nothing is pending, every kit is the register's, the broker's files too."""
    register = AccountRegister.read(out)
    assert register is not None
    assert register.pending == []
    ca = (out / "broker" / "ca.pem").read_bytes()
    assert ca == (out / "authority" / "ca.pem").read_bytes()
    signing = {Kit.read(out / one.kit_file).signing_public for one in register.accounts}
    assert len(signing) == 1
    for account in register.accounts:
        kit = Kit.read(out / account.kit_file)
        assert (kit.name, kit.roles, kit.ca) == (account.name, account.roles, ca)
        if register.place.passwords:
            assert kit.password is not None
            assert is_password(kit.password, passwords(out)[account.name])
        else:
            assert f"{serial(kit):x}" == account.serial
            assert serial(kit) not in revoked(out)
    if register.place.passwords:
        assert set(passwords(out)) == {one.name for one in register.accounts}
    else:
        assert revoked(out) == {int(one.serial, 16) for one in register.revoked}
    assert re.findall("^user (.*)$", acl(out), re.MULTILINE) == [one.name for one in register.accounts]
    broker = certificate((out / "broker" / "broker.pem").read_bytes())
    assert f"{broker.serial_number:x}" == register.broker_serial
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(
        out / "broker" / "broker.pem", out / "broker" / "broker.key"
    )  # they belong together
    for path in [out, *out.rglob("*")]:
        allowed = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == allowed, path


# --- what it makes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [PLACE, WITH_PASSWORDS], ids=["certificates", "passwords"])
def test_it_makes_a_kit_for_everybody_and_files_for_the_broker(tmp_path: Path, place: BrokerLocation) -> None:
    out = tmp_path / "kits"
    begin(out, place)
    check_whole(out)
    assert {path.name for path in out.glob("*.zip")} == KITS
    wanted = {"ca.pem", "broker.pem", "broker.key", "acl", "mosquitto.conf", "mosquitto-2.1.conf"}
    assert {path.name for path in (out / "broker").iterdir()} == wanted | {
        "passwd" if place.passwords else "crl.pem"
    }
    edge, aggregator = Kit.read(out / "edge-1.zip"), Kit.read(out / "aggregator.zip")
    assert (edge.name, edge.roles, edge.broker) == ("1", ("train", "predict"), "mqtts://broker.example:8883")
    assert edge.signing_private is None
    keys = {Kit.read(out / name).sealing_private for name in KITS}
    assert None not in keys
    assert len(keys) == len(KITS), "each has a key of its own to seal with"
    assert aggregator.signing_private is not None
    assert aggregator.sealing_private is not None
    assert aggregator.signing_public == edge.signing_public
    assert Kit.read(out / "operator.zip").signing_private is None
    if place.passwords:
        assert (edge.user, edge.cert, edge.key) == ("1", None, None)
        assert edge.password != Kit.read(out / "edge-0.zip").password
    else:
        assert (edge.user, edge.password) == (None, None)


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


# --- what can be done about it later --------------------------------------------------------------------------


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


def test_the_brokers_certificate_is_renewed(tmp_path: Path) -> None:
    made = begin(tmp_path)
    before = certificate((made.broker_directory / "broker.pem").read_bytes())
    made.rotate_broker()
    check_whole(tmp_path)
    assert revoked(tmp_path) == {before.serial_number}
    after = certificate((made.broker_directory / "broker.pem").read_bytes())
    assert after.public_key() != before.public_key()


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


# --- interrupted ----------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """As by a signal: whatever happens in the place where it comes from, nothing is tidied up."""


OPERATIONS: dict[str, Callable[[Path], object]] = {
    "add": lambda out: _open(out, lambda made: made.add([("2", ("train",)), ("3", ("train",))], force=False)),
    "rotate": lambda out: _open(out, lambda made: made.rotate(["0", "aggregator"], force=True)),
    "rotate --all": lambda out: _open(
        out, lambda made: made.rotate([one.name for one in made.register.accounts], force=True, new_keys=True)
    ),
    "rotate --broker": lambda out: _open(out, lambda made: made.rotate_broker()),
    "revoke": lambda out: _open(out, lambda made: made.revoke(["0"])),
}


def _open(out: Path, do: Callable[[Provision], object]) -> None:
    with kits.open_provision(out) as made:
        do(made)


def _dying_at(number: int, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """From now on the ``number``th file is not written, nor any after it; gives the list of those that were."""
    written: list[Path] = []
    write = files.write_private

    def dying(path: Path, content: bytes) -> None:
        if len(written) >= number:
            raise Interrupted
        write(path, content)
        written.append(path)

    for module in (kit_module, authority, accounts, broker_files):
        monkeypatch.setattr(module, "write_private", dying)
    return written


@pytest.mark.parametrize("place", [PLACE, WITH_PASSWORDS], ids=["certificates", "passwords"])
def test_beginning_can_be_repeated_wherever_it_died(
    tmp_path: Path, place: BrokerLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 0
    while True:
        out = tmp_path / str(number)
        with monkeypatch.context() as patch:
            _dying_at(number, patch)
            try:
                begin(out, place)
                break
            except Interrupted:
                pass
        begin(out, place)
        check_whole(out)
        number += 1
    assert number >= 4 + 1 + 7 + len(KITS) + 1


@pytest.mark.parametrize("place", [PLACE, WITH_PASSWORDS], ids=["certificates", "passwords"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_next_command_finishes_what_died(
    tmp_path: Path, operation: str, place: BrokerLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 0
    while True:
        out = tmp_path / str(number)
        begin(out, place)
        before = (out / "accounts.json").read_bytes()
        with monkeypatch.context() as patch:
            _dying_at(number, patch)
            try:
                OPERATIONS[operation](out)
                break
            except Interrupted:
                pass
        _open(out, lambda _: None)
        check_whole(out)
        if number == 0:
            assert (out / "accounts.json").read_bytes() == before
        number += 1
    assert number >= 3


def test_one_process_at_a_time(tmp_path: Path) -> None:
    begin(tmp_path)
    with (tmp_path / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with (
            pytest.raises(UserError, match="in use by another fl-aggregator provision"),
            kits.open_provision(tmp_path),
        ):
            pass
        with pytest.raises(UserError, match="in use by another fl-aggregator provision"):
            begin(tmp_path)
    _open(tmp_path, lambda _: None)


# --- what it refuses ------------------------------------------------------------------------------------------


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


# --- the command ----------------------------------------------------------------------------------------------


def provision(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fl_aggregator", "provision", *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_whole_story_on_the_command_line(tmp_path: Path) -> None:
    # These name the broker for the other commands, and mean nothing here.
    shell = {"FL_PASSWORD": "x", "FL_BROKER": "mqtt://localhost", "FL_PREDICT": "none"}
    done = provision(
        "--edges", "3", "--out", "k", "--broker-host", "broker.example", "--broker-host", "::1",
        "--prefix", "plant7/fl", "--predict", "0,2", "--evaluate", "all", "--askers", "web,phone",
        "--broker-port", "8884", cwd=tmp_path, **shell,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = tmp_path / "k"
    check_whole(out)
    edge = Kit.read(out / "edge-2.zip")
    assert edge.roles == ("train", "evaluate", "predict")
    assert (edge.broker, edge.prefix) == ("mqtts://broker.example:8884", "plant7/fl")
    assert Kit.read(out / "edge-1.zip").roles == ("train", "evaluate")
    assert Kit.read(out / "asker-phone.zip").roles == ("asker",)
    for words in (
        ("add", "ward-3", "ward-4", "--predict", "ward-4", "--out", "k"),
        ("add", "kiosk", "--asker", "--out", "k"),
        ("rotate", "0", "--aggregator", "--broker", "--out", "k", "--force"),
        ("revoke", "ward-3", "phone", "--out", "k"),
        ("rotate", "--all", "--force", "--out", "k"),
    ):
        done = provision(*words, cwd=tmp_path, **shell)
        assert done.returncode == 0, done.stderr
        assert "kill -HUP" in done.stdout
        check_whole(out)
    assert Kit.read(out / "edge-ward-4.zip").roles == ("train", "predict")
    register = json.loads((out / "accounts.json").read_text())
    names = [account["name"] for account in register["accounts"]]
    assert names == ["aggregator", "operator", "0", "1", "2", "ward-4", "kiosk", "web"]
    said = done.stdout + done.stderr
    assert "PRIVATE" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "--edges is missing"),
        ("--edges 2", "--broker-host is missing"),
        ("--edges -1 --broker-host b", "--edges"),
        ("--edges 2 --broker-host a_b", "--broker-host 'a_b': expected a host name or an address"),
        ("--edges 2 --broker-host b --broker-port 0", "--broker-port"),
        ("--edges 2 --broker-host b --prefix fl/#", "--prefix"),
        ("--edges 2 --broker-host b --predict 2", "--predict '2': not one of the edges to create"),
        ("--edges 2 --broker-host b --predict 0,,1", "--predict '': expected 1 to 64"),
        ("--edges 2 --broker-host b --train none", "edge '0' would have no role"),
        ("--edges 2 --broker-host b --askers operator", "this name is reserved for the operator"),
        ("--edges 2 --broker-host b --askers 1", "'1' is given twice"),
        ("--edges 2 --broker-host b --broker-dir etc", "--broker-dir 'etc': expected an absolute path"),
        ("--edges 2 --broker-host b --days 0", "--days"),
        ("--edges 2 --broker-host b --out taken", "taken"),
        ("--prefix x add 3", "--prefix before add: expected after it"),
        ("add 3", "contains no accounts.json; start with"),
        ("add a/b", "edge 'a/b': expected 1 to 64"),
        ("add aggregator", "this name is reserved for the aggregator"),
        ("add", "ID"),
        ("revoke 3 --out nowhere", "nowhere"),
        ("rotate", "nothing to rotate"),
        ("rotate --all 3", "--all cannot be combined with account names"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_and_makes_nothing(
    tmp_path: Path, words: str, said: str
) -> None:
    (tmp_path / "taken").write_text("a file")
    done = provision(*words.split(), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.rglob("*.zip")) == []
