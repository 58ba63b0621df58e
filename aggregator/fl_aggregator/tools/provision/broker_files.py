"""Writes the broker's directory: all files that Mosquitto reads, made from the register.

``mosquitto.conf`` is for 2.0. 2.1 accepts it too, with a warning that 3.0 will remove two of its settings;
``mosquitto-2.1.conf`` uses the plug-ins of 2.1 instead of these. All other files are the same for both.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fl_aggregator.tools.provision import acl
from fl_aggregator.tools.provision.accounts import BRIDGE_CERTIFICATE, AccountRegister, BrokerLocation
from fl_aggregator.tools.provision.authority import Authority, IssuedCertificate
from fl_aggregator.tools.provision.bridges import QUEUE, bridge_lines
from fl_shared.security.tls import public_key_pin
from fl_shared.system.files import write_private
from fl_shared.system.mosquitto import Listener, configuration

CONFIGURATION: Final = "mosquitto.conf"
CONFIGURATION_2_1: Final = "mosquitto-2.1.conf"
ACL: Final = "acl"
PASSWORDS: Final = "passwd"
CA: Final = "ca.pem"
REVOCATION_LIST: Final = "crl.pem"
BROKER_CERTIFICATE: Final = "broker.pem"
BROKER_KEY: Final = "broker.key"
BRIDGE_KEY: Final = "bridge.key"
PLUGINS: Final = "/usr/lib"
"""The directory of the plug-ins of 2.1 in the official image."""
MAX_KEEPALIVE: Final = 600
"""Seconds: a client that has vanished is noticed, and its queue freed, after at most one and a half times as many."""
_HEADER: Final = (
    "Made by `fl-aggregator provision`; the page 'Accounts, certificates and kits' of the documentation says how to "
    "install it."
)


def write(directory: Path, register: AccountRegister, authority: Authority, now: datetime) -> None:
    """Writes all files but the broker's certificate and key. Raises ``OSError``."""
    location = register.place
    files = {
        CA: authority.pem,
        ACL: acl.acl_text(register.accounts, location.prefix, location.home_assistant).encode(),
    }
    if location.passwords:
        lines = (f"{account.name}:{account.password}\n" for account in register.accounts if account.password)
        files[PASSWORDS] = "".join(lines).encode()
    else:
        files[REVOCATION_LIST] = authority.revocation_list(register.revoked, now)
    for target, bridged in directories(directory, location):
        conf = {
            CONFIGURATION: os.fsencode(mosquitto_conf(location, target, bridged=bridged)),
            CONFIGURATION_2_1: os.fsencode(mosquitto_conf(location, target, PLUGINS, bridged=bridged)),
        }
        for name, content in (files | conf).items():
            write_private(target / name, content)


def directories(directory: Path, location: BrokerLocation) -> list[tuple[Path, str | None]]:
    """The directories of all brokers, the first being ``directory``, and the names of those that are bridged to it."""
    bridged = [(directory.with_name(f"{directory.name}-{name}"), name) for name in location.bridged]
    return [(directory, None), *bridged]


def write_bridge(certificate: Path, issued: IssuedCertificate) -> None:
    """Writes the certificate and the key of a bridge's account. Raises ``OSError``."""
    # The key first: if the certificate exists, both exist.
    write_private(certificate.with_name(BRIDGE_KEY), issued.key)
    write_private(certificate, issued.cert)


def is_bridge_written(certificate: Path, serial: int) -> bool:
    """Whether the certificate with this serial number has been written there."""
    written = _written(certificate)
    return written is not None and written.serial_number == serial


def write_certificate(
    directory: Path, register: AccountRegister, authority: Authority, now: datetime
) -> bytes:
    """Issues and writes the broker's certificate and key, unless they are those of the register.

    All brokers of a star have the same ones, which name all hosts: a kit fits each of them.
    Returns the pin of the key. Raises ``OSError``.
    """
    assert register.broker_serial is not None
    serial = int(register.broker_serial, 16)
    targets = [target for target, _ in directories(directory, register.place)]
    written = _written(targets[-1] / BROKER_CERTIFICATE)  # which is written last
    if written is not None and written.serial_number == serial:
        return _pin(written)
    location = register.place
    issued = authority.issue_broker(location.hosts, serial, now, location.days)
    # The key first: if the certificate exists, both exist.
    for target in targets:
        write_private(target / BROKER_KEY, issued.key)
        write_private(target / BROKER_CERTIFICATE, issued.cert)
    return _pin(x509.load_pem_x509_certificate(issued.cert))


def _pin(certificate: x509.Certificate) -> bytes:
    return public_key_pin(certificate.public_bytes(Encoding.DER))


def _written(certificate: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError):
        return None


def mosquitto_conf(
    location: BrokerLocation, directory: Path, plugins: str | None = None, *, bridged: str | None = None
) -> str:
    """The text of ``mosquitto.conf``.

    ``plugins``: the directory of Mosquitto 2.1's plug-ins, null for 2.0. ``bridged``: the broker's name, if it is
    bridged to the hub.
    """
    broker_directory = (
        str(directory.absolute()) if location.broker_dir is None else location.broker_dir.rstrip("/")
    )
    listener_settings = [
        f"cafile {broker_directory}/{CA}",
        f"certfile {broker_directory}/{BROKER_CERTIFICATE}",
        f"keyfile {broker_directory}/{BROKER_KEY}",
    ]
    if not location.passwords:
        listener_settings += [
            "require_certificate true",
            "use_identity_as_username true",
            f"crlfile {broker_directory}/{REVOCATION_LIST}",
        ]
    files = [("acl_file", ACL)] + ([("password_file", PASSWORDS)] if location.passwords else [])
    general: list[str] = []
    for setting, file in files:
        if plugins is None:
            general.append(f"{setting} {broker_directory}/{file}")
        else:
            general += [
                f"global_plugin {plugins}/mosquitto_{setting}.so",
                f"plugin_opt_{setting} {broker_directory}/{file}",
            ]
    star = [QUEUE] if location.bridged else []
    if bridged is not None:
        credentials = [
            f"bridge_cafile {broker_directory}/{CA}",
            f"bridge_certfile {broker_directory}/{BRIDGE_CERTIFICATE}",
            f"bridge_keyfile {broker_directory}/{BRIDGE_KEY}",
        ]
        star += bridge_lines(bridged, location.hub, location.prefix, credentials)
    return configuration(
        [Listener(location.port)],
        allow_anonymous=False,
        extra=[*listener_settings, *general, f"max_keepalive {MAX_KEEPALIVE}", *star],
        header=_HEADER,
    )
