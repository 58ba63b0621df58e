"""Kits: what goes in comes out, and whatever else a file may hold is a mistake that is named."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import stat
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fl_aggregator.tools.provision.authority import Authority, new_serial
from fl_shared.errors import UserError, WrongBrokerKey
from fl_shared.security.kit import MAX_KIT, Kit
from fl_shared.security.kit_archive import MAX_MEMBER
from fl_shared.security.tls import public_key_pin
from tests.support.bad_kits import BAD, Members, members_of, saying, zipped

NOW = datetime.now(UTC).replace(microsecond=0)
DESCRIPTORS = Path("/dev/fd")


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("ca") / "authority", NOW)


@pytest.fixture(scope="module")
def kit(authority: Authority) -> Kit:
    issued = authority.issue_client("7", new_serial(), NOW, 30)
    sealing = X25519PrivateKey.generate()
    expires = authority.expiry(NOW, 30)
    member = authority.enrolment.issue_member("7", expires)
    return Kit(
        name="7",
        roles=("train", "predict"),
        broker="mqtts://broker.example:8883",
        prefix="plant7/fl",
        ca=authority.pem,
        broker_pin=bytes(32),
        cert=issued.cert,
        key=issued.key,
        signing_public=authority.signing.public_key().public_bytes_raw(),
        sealing_public=authority.sealing.public_key().public_bytes_raw(),
        sealing_private=sealing.private_bytes_raw(),
        enrolment_public=authority.enrolment.public,
        voucher=authority.enrolment.issue_voucher(
            "7", sealing.public_key().public_bytes_raw(), ("train", "predict"), expires
        ),
        member_private=member.private,
        member_until=member.until,
        member_voucher=member.voucher,
        predict_group="0123abcd" * 4,
    )


@pytest.fixture(scope="module")
def of_aggregator(kit: Kit, authority: Authority) -> Kit:
    issued = authority.issue_client("aggregator", new_serial(), NOW, 30)
    return replace(
        kit,
        name="aggregator",
        roles=("aggregator",),
        cert=issued.cert,
        key=issued.key,
        signing_private=authority.signing.private_bytes_raw(),
        sealing_private=authority.sealing.private_bytes_raw(),
        voucher=None,
        member_private=None,
        member_until=None,
        member_voucher=None,
        predict_group=None,
    )


@pytest.fixture(scope="module")
def with_password(kit: Kit) -> Kit:
    return replace(kit, cert=None, key=None, user="7", password="s3cret-word")


def test_what_is_written_is_read_again(
    kit: Kit, of_aggregator: Kit, with_password: Kit, tmp_path: Path
) -> None:
    for number, one in enumerate((kit, of_aggregator, with_password)):
        path = tmp_path / f"{number}.zip"
        one.write(path)
        assert Kit.read(path) == one
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert one.encode() == path.read_bytes()
    assert names_in(tmp_path) == ["0.zip", "1.zip", "2.zip"]


def test_it_is_not_written_over_what_is_there(kit: Kit, with_password: Kit, tmp_path: Path) -> None:
    path = tmp_path / "edge-7.zip"
    path.write_bytes(b"something")
    with pytest.raises(UserError, match=r"edge-7\.zip already exists"):
        kit.write(path)
    assert path.read_bytes() == b"something"
    kit.write(path, replace=True)
    with_password.write(path, replace=True)
    assert Kit.read(path) == with_password


def test_it_does_not_show_its_secrets(kit: Kit, of_aggregator: Kit, with_password: Kit) -> None:
    for one in (kit, of_aggregator, with_password):
        shown = repr(one) + str(one)
        assert "PRIVATE" not in shown
        assert "s3cret" not in shown
        assert repr(of_aggregator.signing_private) not in shown
        assert repr(of_aggregator.sealing_private) not in shown
        assert repr(kit.sealing_private) not in shown
        assert repr(kit.member_private) not in shown
        assert str(kit.predict_group) not in shown
        assert one.name in shown


def test_a_kit_that_others_may_read_is_warned_about(
    kit: Kit, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "kit.zip"
    kit.write(path)
    Kit.read(path)
    assert caplog.text == ""
    path.chmod(0o644)
    Kit.read(path)
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize(("change", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_kit_is_a_mistake_that_is_named(
    kit: Kit, tmp_path: Path, change: Callable[[Members], Members], said: str
) -> None:
    path = tmp_path / "kit.zip"
    path.write_bytes(zipped(change(members_of(kit))))
    with pytest.raises(UserError, match=said) as caught:
        Kit.read(path)
    assert str(caught.value).startswith(f"kit {path}: ")
    assert names_in(tmp_path) == ["kit.zip"]


def test_the_certificate_of_another_authority_is_refused(kit: Kit, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", NOW).issue_client("7", new_serial(), NOW, 30)
    (tmp_path / "kit.zip").write_bytes(replace(kit, cert=other.cert, key=other.key).encode())
    with pytest.raises(UserError, match=r"cert\.pem: was not issued by ca\.pem"):
        Kit.read(tmp_path / "kit.zip")
    (tmp_path / "kit.zip").write_bytes(replace(kit, key=other.key).encode())
    with pytest.raises(UserError, match=r"key\.pem: not the key of cert\.pem"):
        Kit.read(tmp_path / "kit.zip")


def test_private_keys_that_do_not_fit_the_public_ones_are_refused(of_aggregator: Kit, tmp_path: Path) -> None:
    path = tmp_path / "kit.zip"
    for name in ("signing_private", "sealing_private"):
        replace(of_aggregator, **{name: bytes(32)}).write(path, replace=True)  # type: ignore[arg-type]
        with pytest.raises(UserError, match=f"{name} is not the key of"):
            Kit.read(path)


def test_the_member_key_of_another_account_or_authority_is_refused(
    kit: Kit, authority: Authority, tmp_path: Path
) -> None:
    """P2 in docs/privacy.md."""
    path = tmp_path / "kit.zip"
    other = Authority.create(tmp_path / "other", NOW)
    until = authority.expiry(NOW, 30)
    for member in (authority.enrolment.issue_member("8", until), other.enrolment.issue_member("7", until)):
        changed = replace(kit, member_private=member.private, member_voucher=member.voucher)
        changed.write(path, replace=True)
        with pytest.raises(UserError, match="member_voucher does not match the member_private of '7'"):
            Kit.read(path)


def test_only_who_trains_has_a_member_key(kit: Kit, of_aggregator: Kit, tmp_path: Path) -> None:
    names = ("member_private", "member_until", "member_voucher")
    replace(of_aggregator, **{name: getattr(kit, name) for name in names}).write(tmp_path / "kit.zip")
    with pytest.raises(UserError, match="with the role train, and only with it"):
        Kit.read(tmp_path / "kit.zip")


def test_a_password_is_in_no_message(with_password: Kit, tmp_path: Path) -> None:
    path = tmp_path / "kit.zip"
    for bad in ({"password": "s3cret" * 100}, {"password": ["s3cret"]}, {"user": "", "password": "s3cret"}):
        path.write_bytes(zipped(saying(**bad)(members_of(with_password))))
        with pytest.raises(UserError) as caught:
            Kit.read(path)
        assert "s3cret" not in str(caught.value)


def test_what_unpacks_to_more_than_a_kit_is_refused_and_not_unpacked(kit: Kit, tmp_path: Path) -> None:
    path = tmp_path / "kit.zip"
    bomb = {**members_of(kit), "ca.pem": bytes(64 * 2**20)}
    data = zipped(bomb, compression=zipfile.ZIP_DEFLATED)
    assert len(data) < MAX_KIT
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"ca\.pem: 67108864 bytes, expected at most {MAX_MEMBER}"):
        Kit.read(path)
    # One that says of itself that it is small.
    path.write_bytes(data.replace((64 * 2**20).to_bytes(4, "little"), (600).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"not a readable zip file|not a certificate"):
        Kit.read(path)


def test_what_is_no_kit_at_all_is_a_mistake(kit: Kit, tmp_path: Path) -> None:
    path = tmp_path / "kit.zip"
    members = members_of(kit)
    for data, said in (
        (b"", "not a readable zip file"),
        (b"PK" * 100, "not a readable zip file"),
        (kit.encode()[:-30], "not a readable zip file"),
        (bytes(MAX_KIT + 1), f"larger than {MAX_KIT} bytes"),
        (zipped(members, compression=zipfile.ZIP_LZMA), "not a readable zip file"),
        (zipped(members, twice="ca.pem"), r"contains ca\.pem twice"),
        (zipped({}), r"kit\.json is missing"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=said):
            Kit.read(path)
    with pytest.raises(UserError, match="No such file"):
        Kit.read(tmp_path / "none.zip")
    with pytest.raises(UserError, match="Is a directory"):
        Kit.read(tmp_path)
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(UserError, match="is not a regular file"):
        Kit.read(tmp_path / "pipe.zip")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_happens_to_its_bytes_it_is_read_or_refused(
    kit: Kit, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(kit.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] = data.draw(st.integers(0, 255))
    path = tmp_path / "kit.zip"
    path.write_bytes(
        content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    )
    with contextlib.suppress(UserError):
        Kit.read(path).ssl_context()


# --- what TLS needs -------------------------------------------------------------------------------------------


def test_a_certificate_out_of_its_time_is_named(kit: Kit, with_password: Kit) -> None:
    kit.check_validity(NOW)
    with_password.check_validity(NOW + timedelta(days=9999))
    with pytest.raises(UserError, match=r"'7': its certificate expired on .*provision rotate"):
        kit.check_validity(NOW + timedelta(days=31))
    with pytest.raises(UserError, match=r"is its clock right\?"):
        kit.check_validity(NOW - timedelta(days=2))


def test_a_voucher_that_is_missing_or_has_expired_is_named(kit: Kit) -> None:
    kit.check_voucher(NOW + timedelta(days=30))
    with pytest.raises(UserError, match=r"'7': its voucher expired on .*provision rotate"):
        kit.check_voucher(NOW + timedelta(days=30, seconds=1))
    with pytest.raises(UserError, match="no key to seal with"):
        replace(kit, sealing_private=None, voucher=None).check_voucher(NOW)


def test_its_context_speaks_to_the_broker_and_to_nobody_else(
    kit: Kit, authority: Authority, tmp_path: Path
) -> None:
    broker = authority.issue_broker(["broker.example", "127.0.0.1"], new_serial(), NOW, 30)
    kit = replace(kit, broker_pin=public_key_pin(ssl.PEM_cert_to_DER_cert(broker.cert.decode())))
    assert handshake(kit, authority, broker, "broker.example", tmp_path) == (True, "7")
    assert handshake(kit, authority, broker, "127.0.0.1", tmp_path) == (True, "7")
    assert handshake(kit, authority, broker, "elsewhere.example", tmp_path)[0] is False
    # An edge's certificate does not make a broker, and another authority's no broker of ours.
    assert (
        handshake(
            kit, authority, authority.issue_client("broker.example", 1, NOW, 1), "broker.example", tmp_path
        )[0]
        is False
    )
    # Nor does a certificate for the broker with another key: an old one, which somebody has stolen.
    stolen = authority.issue_broker(["broker.example"], new_serial(), NOW, 30)
    with pytest.raises(WrongBrokerKey):
        handshake(kit, authority, stolen, "broker.example", tmp_path)
    other = Authority.create(tmp_path / "other", NOW).issue_broker(["broker.example"], new_serial(), NOW, 30)
    assert handshake(kit, authority, other, "broker.example", tmp_path)[0] is False


def handshake(
    kit: Kit, authority: Authority, server: Any, host: str, tmp_path: Path
) -> tuple[bool, str | None]:
    """Whether the client trusts the server, and whom the server takes the client for, both as strict as can be."""
    (tmp_path / "server.pem").write_bytes(server.cert + server.key)
    (tmp_path / "ca.pem").write_bytes(authority.pem + authority.revocation_list([], NOW))
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    serving.load_cert_chain(tmp_path / "server.pem")
    serving.verify_mode = ssl.CERT_REQUIRED
    serving.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_CRL_CHECK_LEAF
    asking = kit.ssl_context()
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()
    seen: list[str] = []

    def serve() -> None:
        with (
            contextlib.suppress(OSError),
            theirs,
            serving.wrap_socket(theirs, server_side=True) as connection,
        ):
            certificate = connection.getpeercert()
            assert certificate is not None
            subject: Any = certificate["subject"]
            seen.append(subject[0][0][1])
            connection.send(b"1")
            connection.recv(1)  # until the client has gone, or it could not read to the end

    thread = threading.Thread(target=serve)
    thread.start()
    trusted = True
    try:
        with ours:
            ours.settimeout(10)
            with asking.wrap_socket(ours, server_hostname=host) as connection:
                connection.recv(1)
    except ssl.SSLCertVerificationError:
        trusted = False
    finally:
        thread.join(10)
    return trusted, seen[0] if seen else None


def test_its_context_leaves_no_key_behind(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = len(names_in(DESCRIPTORS))
    kit.ssl_context()
    assert names_in(tmp_path) == []
    monkeypatch.delattr(os, "memfd_create", raising=False)  # as where there is none
    kit.ssl_context()
    assert names_in(tmp_path) == []
    assert len(names_in(DESCRIPTORS)) == before
