"""Explains in one line for a person why there is no connection, and whether it is worth trying again."""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fl_shared.errors import ServerRequiresTls, WebSocketRefused, WrongBrokerKey
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import ConnectionSettings
from fl_shared.system.invocation import aggregator_command
from fl_shared.system.mosquitto import accepts_connect

PROBE_TIMEOUT: Final = 1.0
NO_ROOM: Final = "it may have as many clients as it allows (Mosquitto: max_connections of the listener)"
"""Mosquitto closes a connection that is one too many without an answer; other brokers send a reason code."""
MESSAGES_MISSING: Final = (
    "a slow link, a busy machine, or the broker drops messages (max_queued_messages, max_queued_bytes or "
    f"message_size_limit in mosquitto.conf; {aggregator_command('doctor')} measures them)"
)
"""Why messages may not arrive though all are connected."""
_ROTATE: Final = "get a new one (fl-aggregator provision rotate)"
_NEW_KIT: Final = "get a new kit (fl-aggregator provision rotate has made one; after revoke: provision add)"
_NOT_TLS: Final = frozenset(
    {
        "WRONG_VERSION_NUMBER",
        "UNEXPECTED_MESSAGE",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "HTTP_REQUEST",
    }
)
_TLS_TOO_OLD: Final = frozenset({"UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "TLSV1_ALERT_PROTOCOL_VERSION"})
_CLIENT_CERTIFICATE_ALERTS: Final = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it requires a client certificate: give --kit, or --cert and --key",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it may require a client certificate: give --kit, or --cert and --key",
    "TLSV1_ALERT_UNKNOWN_CA": "our certificate is from an authority that it does not trust: is it for this broker?",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": f"our certificate has expired or is not valid yet: {_ROTATE}",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": f"our certificate has been revoked: {_NEW_KIT}",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it does not accept our certificate: is it for this broker, and for clients?",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept our certificate: is it for this broker, and for clients?",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it does not accept our certificate: is it for clients?",
    "TLSV1_ALERT_ACCESS_DENIED": "our certificate gives no access",
}
"""TLS alerts (RFC 8446, 6.2) as OpenSSL names them. In TLS 1.3 they come at the first read."""
_EXPIRED, _NOT_YET, _SELF_SIGNED, _WRONG_HOST, _WRONG_ADDRESS = 10, 9, 18, 62, 64
_UNKNOWN_AUTHORITY: Final = frozenset({2, 19, 20, 21})
"""Verification errors of OpenSSL (X509_V_ERR_…)."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why there is no connection. ``is_permanent``: it stays so until a person has changed something."""

    reason: str
    is_permanent: bool = False


def diagnose(error: OSError | UnicodeError, settings: ConnectionSettings) -> Diagnosis:
    """The diagnosis of an error that came before the broker accepted us. May probe the port, for at most 1 s.

    ``error``: raised while the stream was opened, or by the stream before CONNACK.
    """
    address = settings.address
    if isinstance(error, socket.gaierror):
        return Diagnosis(f"the host name {address.host!r} cannot be resolved ({error.strerror})")
    if isinstance(error, UnicodeError):
        return Diagnosis(f"{address.host!r} is not a host name")
    if isinstance(error, TimeoutError):
        return Diagnosis(
            f"{address.host} did not answer on port {address.port} within {settings.connect_timeout:g} s"
        )
    if isinstance(error, ConnectionRefusedError):
        return Diagnosis(f"nothing listens on port {address.port} of {address.host} (connection refused)")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Diagnosis("too many open files in this program: raise the limit (ulimit -n)")
    if isinstance(error, ServerRequiresTls):
        return _tls_required(address)
    if isinstance(error, WrongBrokerKey):
        return Diagnosis(
            f"{address}: the broker has another key than the kit expects; nothing was sent to it: after "
            "fl-aggregator provision rotate --broker, the broker needs its new files, and this account its new kit",
            is_permanent=True,
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return Diagnosis(f"{address}: {_server_certificate_problem(error, address)}", is_permanent=True)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
        return _diagnose_tls(error, address)
    if address.is_encrypted and isinstance(error, ssl.SSLEOFError | ConnectionError):
        return _diagnose_disconnect(error, address)
    return _diagnose_other(error, address)


def diagnose_no_answer(settings: ConnectionSettings) -> Diagnosis:
    """The diagnosis of a broker that closed the connection without an answer to CONNECT.

    May probe the port, for at most 1 s.
    """
    address = settings.address
    if not address.is_encrypted and _accepts_tls(address):
        return _tls_required(address)
    hint = ", and does it accept our certificate" if address.is_encrypted else ""
    return Diagnosis(
        f"{address} closed the connection without an answer: is it an MQTT 5 broker{hint}? If so, {NO_ROOM}"
    )


def account_hint(settings: ConnectionSettings) -> str:
    """What to check after the broker has refused the account."""
    options = "(FL_PASSWORD or --password-file)"
    if settings.address.user is None:
        return f"it requires an account (mqtt://USER@host) and the password {options}"
    if settings.password is None:
        return f"no password was given for the user {settings.address.user!r} {options}"
    return f"check the user (mqtt://USER@host) and the password {options}"


def _accepts_tls(address: BrokerAddress) -> bool:
    try:
        with socket.create_connection((address.host, address.port), PROBE_TIMEOUT) as sock:
            ssl.create_default_context().wrap_socket(sock, server_hostname=address.server_name).close()
    except ssl.SSLEOFError:
        return False
    except ssl.SSLError as error:
        return error.reason not in _NOT_TLS
    except OSError:
        return False
    return True


def _server_certificate_problem(error: ssl.SSLCertVerificationError, address: BrokerAddress) -> str:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    match error.verify_code:
        case code if code == _EXPIRED:
            return (
                f"the broker's certificate has expired (this machine's time is {now}): "
                "it needs a new one (fl-aggregator provision rotate --broker)"
            )
        case code if code == _NOT_YET:
            return f"the broker's certificate is not valid yet (this machine's time is {now}): is its clock right?"
        case code if code == _SELF_SIGNED:
            return (
                "the broker's certificate is self-signed, and no trusted authority vouches for it: "
                "give it with --ca if it is the right one"
            )
        case code if code in _UNKNOWN_AUTHORITY:
            return (
                "the broker's certificate is from an authority that is not trusted: give that authority with --ca, "
                "or the kit for this broker with --kit"
            )
        case code if code in (_WRONG_HOST, _WRONG_ADDRESS):
            return (
                f"the broker's certificate is not for {address.host!r}: name the broker in --broker as its certificate "
                "does, or make one with this name (fl-aggregator provision --broker-host)"
            )
        case _:
            return f"the broker's certificate cannot be accepted: {error.verify_message}"


def _diagnose_tls(error: ssl.SSLError, address: BrokerAddress) -> Diagnosis:
    reason = error.reason or ""
    if (explanation := _CLIENT_CERTIFICATE_ALERTS.get(reason)) is not None:
        return Diagnosis(
            f"{address}: the broker refuses the TLS connection: {explanation}", is_permanent=True
        )
    if reason in _NOT_TLS:
        return Diagnosis(_no_tls_message(address), is_permanent=True)
    if reason in _TLS_TOO_OLD:
        return Diagnosis(f"{address}: the broker does not support TLS 1.2 or 1.3", is_permanent=True)
    return Diagnosis(f"{address}: TLS failed: {reason.replace('_', ' ').lower() or error}")


def _diagnose_disconnect(error: OSError, address: BrokerAddress) -> Diagnosis:
    # Behind a proxy, a broker that is just starting closes the connection as well: so probe the port without
    # TLS.
    if not address.is_websocket and accepts_connect(address.host, address.port):
        return Diagnosis(_no_tls_message(address), is_permanent=True)
    if not address.is_websocket or isinstance(error, ssl.SSLEOFError):
        return Diagnosis(
            f"{address}: the connection was closed during the TLS handshake: is a broker with TLS listening there? "
            f"If so, {NO_ROOM}"
        )
    return _diagnose_other(error, address)


def _no_tls_message(address: BrokerAddress) -> str:
    scheme = "mqtt" if address.scheme == "mqtts" else "ws"
    return (
        f"{address}: this port does not use TLS: use another port (8883 or 443), or {scheme}://, "
        "which anyone on the network path can read and change"
    )


def _tls_required(address: BrokerAddress) -> Diagnosis:
    encrypted = "wss" if address.is_websocket else "mqtts"
    return Diagnosis(
        f"{address}: this port requires TLS: write {encrypted}://{address.host_and_port}",
        is_permanent=True,
    )


def _diagnose_other(error: OSError, address: BrokerAddress) -> Diagnosis:
    status = getattr(error, "status", None)
    is_disconnect = isinstance(error, ConnectionError) and status is None
    if is_disconnect and not address.is_encrypted and _accepts_tls(address):
        return _tls_required(address)
    if not isinstance(error, WebSocketRefused):
        return Diagnosis(f"{address}: {error.strerror or error}")
    is_permanent = status is not None and 400 <= status < 500 and status not in (408, 425, 429)
    return Diagnosis(f"{address}: no WebSocket connection: {error}", is_permanent=is_permanent)
