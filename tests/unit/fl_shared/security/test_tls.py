"""`Tls`, `BrokerAccess` and `diagnose`: files that are none, options that do not go together, no secrets shown."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from pathlib import Path

import pytest

from fl_shared.cli.broker_access import BrokerAccess, BrokerOptions
from fl_shared.errors import ServerRequiresTls, UserError, WebSocketRefused
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.diagnosis import diagnose
from fl_shared.mqtt.events import ConnectionSettings
from fl_shared.security.tls import Tls
from tests.support.certificates import Authority, Pair, with_password


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.client("7")


ENCRYPTED = BrokerAddress.parse("mqtts://broker.example")


def test_it_checks_names_and_demands_tls_1_2(authority: Authority, pair: Pair) -> None:
    context = Tls.read(authority.ca, pair.cert, pair.key).context()
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert [one["serialNumber"] for one in context.get_ca_certs()], "it trusts what --ca says"
    assert len(context.get_ca_certs()) == 1, "and nobody else"


def test_without_ca_the_system_decides_whom_to_trust(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere")
    assert len(Tls().context().get_ca_certs()) == 1


def test_files_that_are_none_are_named(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    prose, other, empty = tmp_path / "prose", authority.client("8"), tmp_path / "empty"
    prose.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    empty.touch()
    locked = with_password(pair, b"hunter22", tmp_path / "locked.key")
    rows = [
        ((empty, None, None), r"--ca .*empty: expected PEM"),
        ((tmp_path, None, None), r"--ca .*: Is a directory"),
        ((prose, None, None), r"--ca .*prose: not certificates in PEM"),
        ((pair.key, None, None), r"--ca .*: expected PEM \(-----BEGIN … CERTIFICATE"),
        ((None, pair.cert, None), "--cert without --key"),
        ((None, None, pair.key), "--key without --cert"),
        ((None, pair.cert, pair.cert), r"--key .*: expected PEM \(-----BEGIN … PRIVATE KEY"),
        ((None, pair.cert, other.key), "a certificate in PEM and its key"),
        ((None, prose, pair.key), "expected a certificate in PEM"),
        ((None, pair.cert, locked), "the key has a password"),
    ]
    for files, says in rows:
        with pytest.raises(UserError, match=says):
            Tls.read(*files)


def test_a_key_that_others_may_read_is_told(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    Tls.read(None, pair.cert, pair.key)
    assert not caplog.records
    pair.key.chmod(0o640)
    with caplog.at_level(logging.WARNING):
        Tls.read(None, pair.cert, pair.key)
    assert "other users can read it (mode 640)" in caplog.text


def test_nothing_secret_is_shown(authority: Authority, pair: Pair) -> None:
    tls = Tls.read(authority.ca, pair.cert, pair.key)
    options = BrokerOptions(BrokerAddress.parse("mqtts://7@h"), password="hunter22")
    reach = options.access()
    for shown in (tls, options, reach, reach.connection_settings()):
        assert "PRIVATE" not in repr(shown)
        assert "hunter22" not in repr(shown)


def test_what_does_not_go_together_is_refused(authority: Authority, pair: Pair) -> None:
    plain = BrokerAddress("h")
    for options in (
        BrokerOptions(plain, ca=authority.ca),
        BrokerOptions(plain, cert=pair.cert, key=pair.key),
    ):
        with pytest.raises(UserError, match="needs mqtts:// or wss://, but the broker is mqtt://h:1883"):
            options.access()
    with pytest.raises(UserError, match="a password needs a user; write mqtts://USER@host"):
        BrokerOptions(ENCRYPTED, password="p").access()
    # Never an encrypted address without encryption, whoever makes the settings.
    for wrong in (
        lambda: ConnectionSettings(ENCRYPTED),
        lambda: ConnectionSettings(plain, tls=Tls().context()),
        lambda: BrokerAccess(ENCRYPTED),
    ):
        with pytest.raises(ValueError, match="expected tls for mqtts and wss"):
            wrong()


def test_where_the_broker_is_if_nothing_says_so() -> None:
    assert BrokerOptions().access().address == BrokerAddress("localhost")
    assert BrokerOptions().access(recorded_address=ENCRYPTED).tls is not None
    assert BrokerOptions(BrokerAddress("h")).access(recorded_address=ENCRYPTED).address.host == "h"


def test_a_password_goes_only_where_the_user_says() -> None:
    """A run directory that somebody else made may name any broker."""
    recorded = BrokerAddress.parse("mqtts://me@elsewhere")
    with pytest.raises(UserError, match="add --broker mqtts://me@elsewhere"):
        BrokerOptions(password="p").access(recorded_address=recorded)
    named = BrokerOptions(recorded, password="p")
    assert named.access(recorded_address=ENCRYPTED).address == recorded
    assert named.resume_arguments() == ["--broker", "mqtts://me@elsewhere:8883"]
    assert BrokerOptions(BrokerAddress("h")).resume_arguments() == []


# --- what is said, and whether it is tried again ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "error", "says", "is_hopeless"),
    [
        ("mqtt://h", socket.gaierror(-2, "Name or service not known"), "'h' cannot be resolved", False),
        ("mqtts://h", ConnectionRefusedError(), "nothing listens on port 8883 of h", False),
        ("mqtt://h", TimeoutError(), "did not answer on port 1883 within 5 s", False),
        ("mqtt://h", ServerRequiresTls(), "requires TLS: write mqtts://h:1883", True),
        ("ws://h", ServerRequiresTls(), "requires TLS: write wss://h:80", True),
        (
            "wss://h/x",
            WebSocketRefused("it answers '404'", 404),
            "no WebSocket connection: it answers '404'",
            True,
        ),
        (
            "wss://h/x",
            WebSocketRefused("it answers '503'", 503),
            "no WebSocket connection: it answers '503'",
            False,
        ),
        (
            "ws://h/x",
            WebSocketRefused("it closed the connection"),
            "no WebSocket connection: it closed the connection",
            False,
        ),
        ("mqtt://h", OSError(113, "No route to host"), "mqtt://h:1883: No route to host", False),
    ],
)
def test_a_reason_for_a_person(url: str, error: OSError, says: str, is_hopeless: bool) -> None:
    address = BrokerAddress.parse(url)
    found = diagnose(
        error, ConnectionSettings(address, tls=Tls().context() if address.is_encrypted else None)
    )
    assert says in found.reason
    assert "\n" not in found.reason
    assert found.is_permanent is is_hopeless


def test_who_hangs_up_in_the_middle_of_tls_may_just_be_starting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = BrokerAddress("127.0.0.1", server.getsockname()[1], scheme="mqtts")

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        found = diagnose(ConnectionResetError(), ConnectionSettings(address, tls=Tls().context()))
        thread.join(5)
    assert "closed during the TLS handshake" in found.reason
    assert not found.is_permanent
