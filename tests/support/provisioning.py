"""Makes accounts in a directory, and reads what `provision` has written."""

from __future__ import annotations

import os
import re
import ssl
import stat
import subprocess
from base64 import b64decode
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fl_aggregator.tools.provision import kits
from fl_aggregator.tools.provision.accounts import AccountRegister, BrokerLocation, hash_password
from fl_aggregator.tools.provision.authority import Authority
from fl_aggregator.tools.provision.kits import Provision
from fl_shared.security.kit import AccountRole, Kit
from fl_shared.security.tls import public_key_pin
from tests.support import programs

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
    enrolment = {Kit.read(out / one.kit_file).enrolment_public for one in register.accounts}
    assert enrolment == {Authority.open(out / "authority").enrolment.public}
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
    pins = {Kit.read(out / one.kit_file).broker_pin for one in register.accounts}
    assert pins == {public_key_pin(broker.public_bytes(Encoding.DER))}
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(
        out / "broker" / "broker.pem", out / "broker" / "broker.key"
    )  # they belong together
    for path in [out, *out.rglob("*")]:
        allowed = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == allowed, path


def provision(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return programs.run(
        "fl-aggregator", "provision", *words, cwd=cwd, environment={**os.environ, **environment}
    )
