"""A device asks for a kit, and gets one without private keys; keys of others and used ones are refused."""

from __future__ import annotations

import stat
import zipfile
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fl_aggregator.tools.provision import kits
from fl_aggregator.tools.provision.accounts import AccountRegister
from fl_aggregator.tools.provision.cli import provision
from fl_aggregator.tools.provision.requests import read_request
from fl_shared.cli.request_kit import request_kit_command, write_request
from fl_shared.errors import UserError
from fl_shared.security.device_keys import DeviceKeys
from fl_shared.security.kit import Kit
from fl_shared.security.kit_request import KitRequest, fingerprint
from fl_shared.security.revocations import FILE_NAME, RevocationList
from tests.support.provisioning import WITH_PASSWORDS, begin, revoked, serial


class Device(NamedTuple):
    """A directory in which ``request-kit`` was run; its kit is copied there."""

    keys: Path
    request: Path
    kit: Path

    def read(self) -> KitRequest:
        return read_request(self.request)


def device(directory: Path, name: str, kind: str = "edge") -> Device:
    directory.mkdir(exist_ok=True)
    stem = name if name == "operator" else f"{kind}-{name}"
    write_request(name, stem, directory)
    return Device(*(directory / f"{stem}{suffix}" for suffix in (".keys", ".request", ".zip")))


def deliver(out: Path, of: Device) -> None:
    of.kit.write_bytes((out / of.kit.name).read_bytes())


def run(*words: str) -> Result:
    return CliRunner().invoke(provision, words)


def private_numbers(keys: Path) -> dict[str, bytes]:
    """The private keys of a device, as 32 bytes each."""
    read = DeviceKeys.read(keys)
    tls = load_pem_private_key(read.tls.encode(), None)
    assert isinstance(tls, ec.EllipticCurvePrivateKey)
    number = tls.private_numbers().private_value.to_bytes(32, "big")
    return {"tls": number, "sealing": read.sealing, "member": read.member}


def contains(content: bytes, secret: bytes) -> bool:
    """Whether ``secret`` is in ``content``: raw, in hexadecimal, or within base64 that begins anywhere before it."""
    joined = content.replace(b"\\n", b"").replace(b"\n", b"")
    forms = [secret, secret[::-1], secret.hex().encode(), secret.hex().upper().encode()]
    for offset in range(3):
        encoded = b64encode(bytes(offset) + secret)
        forms.append(encoded[-(-offset * 4 // 3) : (offset + len(secret)) * 4 // 3])
    return any(form in joined or form in content for form in forms)


def test_a_kit_that_answers_a_request_contains_no_private_key(tmp_path: Path) -> None:
    out = tmp_path / "kits"
    begin(out)
    ward = device(tmp_path / "ward", "ward-3")
    done = run(
        "add",
        "--request",
        str(ward.request),
        "--predict",
        "ward-3",
        "--evaluate",
        "ward-3",
        "--out",
        str(out),
    )
    assert done.exit_code == 0, done.output
    assert f"fingerprint {fingerprint(ward.read().digest)}" in done.output
    deliver(out, ward)
    for path in (ward.kit, ward.request, out / "accounts.json"):
        contents = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                assert set(archive.namelist()) == {"kit.json", "ca.pem", "cert.pem"}
                contents += [archive.read(name) for name in archive.namelist()]
        for content in contents:
            assert b"PRIVATE" not in content
            assert b"_private" not in content
            found = [name for name, key in private_numbers(ward.keys).items() if contains(content, key)]
            assert not found, path
    keys = DeviceKeys.read(ward.keys)
    kit = Kit.read(ward.kit)
    assert (kit.name, kit.roles, kit.request) == ("ward-3", ("train", "evaluate", "predict"), keys.request)
    assert (kit.key, kit.sealing_private, kit.member_private) == (
        keys.tls.encode(),
        keys.sealing,
        keys.member,
    )
    kit.check_validity(datetime.now(UTC))
    kit.check_voucher(datetime.now(UTC))
    kit.ssl_context()
    assert kit.encode() == ward.kit.read_bytes(), "what is read with keys is written without"


def test_the_search_finds_private_keys_where_they_are(tmp_path: Path) -> None:
    ward = device(tmp_path, "ward-3")
    assert all(contains(ward.keys.read_bytes(), key) for key in private_numbers(ward.keys).values())
    begin(tmp_path / "kits")
    kit = Kit.read(tmp_path / "kits" / "edge-0.zip")
    assert kit.sealing_private is not None
    assert contains((tmp_path / "kits" / "edge-0.zip").read_bytes(), kit.sealing_private)


def test_keys_are_created_for_the_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    ward = device(tmp_path, "ward-3")
    assert stat.S_IMODE(ward.keys.stat().st_mode) == 0o600
    before = ward.keys.read_bytes()
    with pytest.raises(UserError, match=r"edge-ward-3.request already exists"):
        write_request("ward-3", "edge-ward-3", tmp_path)
    ward.request.unlink()
    with pytest.raises(UserError, match=r"edge-ward-3.keys already exists; keys are never overwritten"):
        write_request("ward-3", "edge-ward-3", tmp_path)
    assert ward.keys.read_bytes() == before
    assert not ward.request.exists()
    ward.keys.unlink()
    ward.keys.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="already exists"):
        write_request("ward-3", "edge-ward-3", tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_the_command_names_its_files_for_edges_operator_and_askers(tmp_path: Path) -> None:
    for kind, name, stem in (
        ("edge", "3", "edge-3"),
        ("asker", "operator", "operator"),
        ("asker", "kiosk", "asker-kiosk"),
    ):
        done = CliRunner().invoke(request_kit_command(kind), [name, "--out", str(tmp_path)])
        assert done.exit_code == 0, done.output
        read = read_request(tmp_path / f"{stem}.request")
        assert read.name == name
        assert f"fingerprint: {fingerprint(read.digest)}" in done.output
    refused = CliRunner().invoke(request_kit_command("edge"), ["a/b", "--out", str(tmp_path)])
    assert isinstance(refused.exception, UserError)


def test_each_mismatch_of_kit_and_keys_is_named(tmp_path: Path) -> None:
    out = tmp_path / "kits"
    begin(out)
    ours, again, other = (
        device(tmp_path / where, name) for where, name in (("a", "w"), ("b", "w"), ("c", "v"))
    )
    with kits.open_provision(out) as made:
        made.add([("w", ("train",)), ("v", ("train",))], force=False, requests=[ours.read(), other.read()])
    deliver(out, ours)
    deliver(out, other)
    for kit, keys, said in (
        (ours.kit, other.keys, "is for 'w', but the keys are those of 'v'"),
        (ours.kit, again.keys, "but the keys are those of the request"),
        (ours.kit, tmp_path / "none", "none: No such file"),
        (ours.kit, ours.request, "expected the file as request-kit wrote it"),
        (out / "edge-0.zip", ours.keys, "has private keys of its own; expected it without --keys"),
        (out / "edge-w.zip", None, "edge-w.keys with its private keys is missing"),
    ):
        with pytest.raises(UserError) as raised:
            Kit.read(kit, keys)
        assert said in str(raised.value)
        assert "\n" not in str(raised.value)
    forged = DeviceKeys.read(again.keys).model_copy(update={"request": DeviceKeys.read(ours.keys).request})
    again.keys.write_bytes(forged.encode())
    with pytest.raises(UserError, match=r"edge-w\.keys: key\.pem: not the key of cert\.pem"):
        Kit.read(ours.kit, again.keys)


def test_a_request_with_used_or_revoked_keys_is_not_answered(tmp_path: Path) -> None:
    out = tmp_path / "kits"
    begin(out)
    ours = device(tmp_path / "a", "w")
    with kits.open_provision(out) as made:
        made.add([("w", ("train",))], force=False, requests=[ours.read()])
        register = made.register
        for requests, said in (
            ([ours.read()], "the request of 'w' has already been answered: edge-w.zip"),
            ([device(tmp_path / "b", "x").read(), device(tmp_path / "c", "x").read()], "two requests of 'x'"),
            ([device(tmp_path / "d", "aggregator").read()], "its kit holds keys of the authority"),
        ):
            with pytest.raises(UserError, match=said):
                made.add([(one.name, ("train",)) for one in requests], force=False, requests=requests)
        keys = DeviceKeys.read(ours.keys)
        tls = load_pem_private_key(keys.tls.encode(), None)
        assert isinstance(tls, ec.EllipticCurvePrivateKey)
        again = KitRequest.make("v", tls, Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate())
        with pytest.raises(UserError, match="the request of 'v' has a key of the account 'w'"):
            made.add([("v", ("train",))], force=False, requests=[again])
        assert made.register == register, "nothing has changed"
        made.revoke(["w"])
        for request in (ours.read(), again):
            with pytest.raises(
                UserError, match=r"has a key that was revoked on 20\d\d-\d\d-\d\d with the kit of 'w'"
            ):
                made.add([(request.name, ("train",))], force=False, requests=[request])
        anew = device(tmp_path / "e", "w")
        made.add([("w", ("train",))], force=False, requests=[anew.read()])
    assert not (set(revoked(out)) & {serial_in(out / "edge-w.zip")})


def serial_in(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return x509.load_pem_x509_certificate(archive.read("cert.pem")).serial_number


def listed_keys(out: Path) -> set[str]:
    kit = Kit.read(out / "aggregator.zip")
    return set(RevocationList.read((out / FILE_NAME).read_bytes(), kit._enrolment()).keys)


def test_rotate_renews_a_kit_for_the_same_keys_or_for_those_of_a_new_request(tmp_path: Path) -> None:
    out = tmp_path / "kits"
    begin(out)
    ours = device(tmp_path / "a", "w")
    with kits.open_provision(out) as made:
        made.add([("w", ("train",))], force=False, requests=[ours.read()])
    deliver(out, ours)
    first = Kit.read(ours.kit)
    for words in (["w"], ["--all"]):
        assert run("rotate", *words, "--force", "--out", str(out)).exit_code == 0
        deliver(out, ours)
        renewed = Kit.read(ours.kit)
        assert serial(renewed) != serial(first)
        assert renewed.public_keys == first.public_keys
        assert not listed_keys(out) & {key.hex() for key in first.public_keys}, "the keys are still in use"
    new = device(tmp_path / "b", "w")
    done = run("rotate", "--request", str(new.request), "--force", "--out", str(out))
    assert done.exit_code == 0, done.output
    deliver(out, new)
    assert Kit.read(new.kit).public_keys != first.public_keys
    assert listed_keys(out) >= {key.hex() for key in first.public_keys}
    with pytest.raises(UserError):
        Kit.read(out / "edge-w.zip", ours.keys)


def test_the_operator_and_askers_may_ask_too(tmp_path: Path) -> None:
    out = tmp_path / "kits"
    begin(out)
    boss, kiosk = device(tmp_path, "operator", "asker"), device(tmp_path, "kiosk", "asker")
    done = run("rotate", "--request", str(boss.request), "--force", "--out", str(out))
    assert done.exit_code == 0, done.output
    done = run("add", "--request", str(kiosk.request), "--asker", "--out", str(out))
    assert done.exit_code == 0, done.output
    deliver(out, boss)
    deliver(out, kiosk)
    assert Kit.read(boss.kit).sealer() is not None
    assert Kit.read(boss.kit).member_private is None
    asker = Kit.read(kiosk.kit)
    assert (asker.sealing_private, asker.voucher) == (None, None)
    register = AccountRegister.read(out)
    assert register is not None
    assert register.find("kiosk").keys == ()  # type: ignore[union-attr]


def test_where_accounts_have_passwords_there_are_no_requests(tmp_path: Path) -> None:
    out = tmp_path / "kits"
    begin(out, WITH_PASSWORDS)
    done = run("add", "--request", str(device(tmp_path, "w").request), "--out", str(out))
    assert isinstance(done.exception, UserError)
    assert "accounts here have passwords" in str(done.exception)


def test_a_file_that_is_no_request_is_named(tmp_path: Path) -> None:
    path = tmp_path / "edge-w.request"
    path.write_bytes(b"{}")
    with pytest.raises(UserError, match=r"^request .*edge-w.request: name: Field required$"):
        read_request(path)
    with pytest.raises(UserError, match="Is a directory"):
        read_request(tmp_path)
