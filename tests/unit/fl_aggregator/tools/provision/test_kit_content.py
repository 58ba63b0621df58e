"""What is in a kit, read by somebody who has the protocol only."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path

import pytest

from tests.support.provisioned_broker import kit_of, provisioned

BYTES = ("broker_pin", "signing_public", "enrolment_public", "sealing_public", "sealing_private", "voucher")


@pytest.mark.parametrize(
    ("passwords", "files"),
    [(False, {"kit.json", "ca.pem", "cert.pem", "key.pem"}), (True, {"kit.json", "ca.pem"})],
)
def test_a_kit_is_as_the_protocol_says(tmp_path: Path, passwords: bool, files: set[str]) -> None:
    """Clause 9.16."""
    made = provisioned(tmp_path / "kits", [("7", ("train",))], passwords=passwords)
    kit = kit_of(made, "7")
    account = made.register.find("7")
    assert account is not None
    with zipfile.ZipFile(made.out / account.kit_file) as archive:
        assert set(archive.namelist()) == files
        described = json.loads(archive.read("kit.json"))
    assert {name: described[name] for name in ("format", "name", "roles", "broker", "prefix")} == {
        "format": 2, "name": "7", "roles": ["train"], "broker": kit.broker, "prefix": kit.prefix,
    }  # fmt: skip
    assert {name: base64.b64decode(described[name]) for name in BYTES} == {
        name: getattr(kit, name) for name in BYTES
    }
    assert ("user" in described, "password" in described) == (passwords, passwords)
