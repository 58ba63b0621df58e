"""The broker's directory: everything that Mosquitto reads, made from the register.

``mosquitto.conf`` is for 2.0, and 2.1 takes it too, with a warning that two of its settings will go in 3.0;
``mosquitto-2.1.conf`` has the plug-ins that 2.1 brings in their place. The rest is the same for both.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from fl_aggregator.tools.provision import acl
from fl_aggregator.tools.provision.accounts import BrokerLocation, Register
from fl_aggregator.tools.provision.authority import Authority
from fl_shared.system.files import write_private
from fl_shared.system.mosquitto import Listener, configuration

CONFIGURATION: Final = "mosquitto.conf"
CONFIGURATION_2_1: Final = "mosquitto-2.1.conf"
ACL: Final = "acl"
PASSWORDS: Final = "passwd"
CA: Final = "ca.pem"
REVOKED: Final = "crl.pem"
CERTIFICATE: Final = "broker.pem"
KEY: Final = "broker.key"
PLUGINS: Final = "/usr/lib"
"""Where the official image has the plug-ins of 2.1."""
_HEADER: Final = "Made by `fl-aggregator provision`; docs/operations.md says how to install it."


def write(directory: Path, register: Register, authority: Authority, now: datetime) -> None:
    """Everything but the broker's certificate and key. Raises ``OSError``."""
    place = register.place
    files = {
        CA: authority.pem,
        ACL: acl.text(register.accounts, place.prefix).encode(),
        CONFIGURATION: conf(place, directory).encode(),
        CONFIGURATION_2_1: conf(place, directory, plugins=PLUGINS).encode(),
    }
    if place.passwords:
        lines = (f"{one.name}:{one.password}\n" for one in register.accounts if one.password)
        files[PASSWORDS] = "".join(lines).encode()
    else:
        files[REVOKED] = authority.revocations(register.revoked, now)
    for name, content in files.items():
        write_private(directory / name, content)


def write_certificate(directory: Path, register: Register, authority: Authority, now: datetime) -> None:
    """The broker's own, if the one that is there is not the register's."""
    assert register.broker_serial is not None
    serial = int(register.broker_serial, 16)
    if _held_serial(directory) == serial:
        return
    place = register.place
    issued = authority.broker(place.hosts, serial, now, place.days)
    # The key first: by its certificate we see that both are there.
    write_private(directory / KEY, issued.key)
    write_private(directory / CERTIFICATE, issued.cert)


def _held_serial(directory: Path) -> int | None:
    try:
        return x509.load_pem_x509_certificate((directory / CERTIFICATE).read_bytes()).serial_number
    except (OSError, ValueError):
        return None


def conf(place: BrokerLocation, made_in: Path, plugins: str | None = None) -> str:
    """The text of ``mosquitto.conf``. ``plugins``: where those of Mosquitto 2.1 are, null for 2.0's own settings."""
    where = str(made_in.absolute()) if place.broker_dir is None else place.broker_dir.rstrip("/")
    of_listener = [f"cafile {where}/{CA}", f"certfile {where}/{CERTIFICATE}", f"keyfile {where}/{KEY}"]
    if not place.passwords:
        of_listener += [
            "require_certificate true",
            "use_identity_as_username true",
            f"crlfile {where}/{REVOKED}",
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
