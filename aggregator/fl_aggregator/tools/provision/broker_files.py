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
from fl_aggregator.tools.provision.accounts import AccountRegister, BrokerLocation
from fl_aggregator.tools.provision.authority import Authority
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
PLUGINS: Final = "/usr/lib"
"""The directory of the plug-ins of 2.1 in the official image."""
MAX_KEEPALIVE: Final = 600
"""Seconds: a client that has vanished is noticed, and its queue freed, after at most one and a half times as many."""
_HEADER: Final = "Made by `fl-aggregator provision`; docs/operations.md says how to install it."


def write(directory: Path, register: AccountRegister, authority: Authority, now: datetime) -> None:
    """Writes all files but the broker's certificate and key. Raises ``OSError``."""
    location = register.place
    files = {
        CA: authority.pem,
        ACL: acl.acl_text(register.accounts, location.prefix).encode(),
        CONFIGURATION: os.fsencode(mosquitto_conf(location, directory)),
        CONFIGURATION_2_1: os.fsencode(mosquitto_conf(location, directory, plugins=PLUGINS)),
    }
    if location.passwords:
        lines = (f"{account.name}:{account.password}\n" for account in register.accounts if account.password)
        files[PASSWORDS] = "".join(lines).encode()
    else:
        files[REVOCATION_LIST] = authority.revocation_list(register.revoked, now)
    for name, content in files.items():
        write_private(directory / name, content)


def write_certificate(
    directory: Path, register: AccountRegister, authority: Authority, now: datetime
) -> bytes:
    """Issues and writes the broker's certificate and key, unless they are those of the register.

    Returns the pin of the key. Raises ``OSError``.
    """
    assert register.broker_serial is not None
    serial = int(register.broker_serial, 16)
    written = _written_certificate(directory)
    if written is not None and written.serial_number == serial:
        return _pin(written)
    location = register.place
    issued = authority.issue_broker(location.hosts, serial, now, location.days)
    # The key first: if the certificate exists, both exist.
    write_private(directory / BROKER_KEY, issued.key)
    write_private(directory / BROKER_CERTIFICATE, issued.cert)
    return _pin(x509.load_pem_x509_certificate(issued.cert))


def _pin(certificate: x509.Certificate) -> bytes:
    return public_key_pin(certificate.public_bytes(Encoding.DER))


def _written_certificate(directory: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate((directory / BROKER_CERTIFICATE).read_bytes())
    except (OSError, ValueError):
        return None


def mosquitto_conf(location: BrokerLocation, directory: Path, plugins: str | None = None) -> str:
    """The text of ``mosquitto.conf``.

    ``plugins``: the directory of Mosquitto 2.1's plug-ins, null for 2.0.
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
    return configuration(
        [Listener(location.port)],
        allow_anonymous=False,
        extra=[*listener_settings, *general, f"max_keepalive {MAX_KEEPALIVE}"],
        header=_HEADER,
    )
