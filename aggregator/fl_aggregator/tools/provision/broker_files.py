"""Writes the broker's directory: all files that Mosquitto reads, made from the register.

``mosquitto.conf`` is for 2.0. 2.1 accepts it too, with a warning that 3.0 will remove two of its settings;
``mosquitto-2.1.conf`` uses the plug-ins of 2.1 instead of these. All other files are the same for both.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from fl_aggregator.tools.provision import acl
from fl_aggregator.tools.provision.accounts import AccountRegister, BrokerLocation
from fl_aggregator.tools.provision.authority import Authority
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
_HEADER: Final = "Made by `fl-aggregator provision`; docs/operations.md says how to install it."


def write(directory: Path, register: AccountRegister, authority: Authority, now: datetime) -> None:
    """Writes all files but the broker's certificate and key. Raises ``OSError``."""
    place = register.place
    files = {
        CA: authority.pem,
        ACL: acl.acl_text(register.accounts, place.prefix).encode(),
        CONFIGURATION: mosquitto_conf(place, directory).encode(),
        CONFIGURATION_2_1: mosquitto_conf(place, directory, plugins=PLUGINS).encode(),
    }
    if place.passwords:
        lines = (f"{one.name}:{one.password}\n" for one in register.accounts if one.password)
        files[PASSWORDS] = "".join(lines).encode()
    else:
        files[REVOCATION_LIST] = authority.revocation_list(register.revoked, now)
    for name, content in files.items():
        write_private(directory / name, content)


def write_certificate(
    directory: Path, register: AccountRegister, authority: Authority, now: datetime
) -> None:
    """Issues and writes the broker's certificate and key, unless they are those of the register.

    Raises ``OSError``.
    """
    assert register.broker_serial is not None
    serial = int(register.broker_serial, 16)
    if _written_serial(directory) == serial:
        return
    place = register.place
    issued = authority.issue_broker(place.hosts, serial, now, place.days)
    # The key first: if the certificate exists, both exist.
    write_private(directory / BROKER_KEY, issued.key)
    write_private(directory / BROKER_CERTIFICATE, issued.cert)


def _written_serial(directory: Path) -> int | None:
    try:
        return x509.load_pem_x509_certificate((directory / BROKER_CERTIFICATE).read_bytes()).serial_number
    except (OSError, ValueError):
        return None


def mosquitto_conf(place: BrokerLocation, made_in: Path, plugins: str | None = None) -> str:
    """The text of ``mosquitto.conf``.

    ``plugins``: the directory of Mosquitto 2.1's plug-ins, null for 2.0.
    """
    where = str(made_in.absolute()) if place.broker_dir is None else place.broker_dir.rstrip("/")
    of_listener = [
        f"cafile {where}/{CA}",
        f"certfile {where}/{BROKER_CERTIFICATE}",
        f"keyfile {where}/{BROKER_KEY}",
    ]
    if not place.passwords:
        of_listener += [
            "require_certificate true",
            "use_identity_as_username true",
            f"crlfile {where}/{REVOCATION_LIST}",
        ]
    files = [("acl_file", ACL)] + ([("password_file", PASSWORDS)] if place.passwords else [])
    general: list[str] = []
    for setting, file in files:
        if plugins is None:
            general.append(f"{setting} {where}/{file}")
        else:
            general += [
                f"global_plugin {plugins}/mosquitto_{setting}.so",
                f"plugin_opt_{setting} {where}/{file}",
            ]
    return configuration(
        [Listener(place.port)], allow_anonymous=False, extra=[*of_listener, *general], header=_HEADER
    )
