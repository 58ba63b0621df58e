"""The register of accounts: their names and roles, and the certificates that are revoked.

It is one file, ``accounts.json``, from which all files of the broker are made. An account whose kit has not
been written yet is ``pending``. The register is ``settled`` at the end of each change: if a change is
interrupted, the next command completes it.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64encode
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from fl_aggregator.tools.provision.requests import RequestedKeys
from fl_shared.cli.options import check_client
from fl_shared.errors import UserError
from fl_shared.protocol import topics
from fl_shared.protocol.topics import CLIENT_PATTERN, GROUP_PATTERN
from fl_shared.security.kit import AccountRole
from fl_shared.system.files import write_private
from fl_shared.system.validation import first_error

FILE_NAME: Final = "accounts.json"
AGGREGATOR: Final = "aggregator"
OPERATOR: Final = topics.OPERATOR
RESERVED_NAMES: Final = (AGGREGATOR, OPERATOR)
BROKER_DIRECTORY: Final = "broker"
"""The directory of the files for the broker, or the hub; that of a bridged broker ends with its name."""
BRIDGE: Final = "bridge-"
"""What the account of a bridge begins with; the broker's name follows."""
BRIDGE_CERTIFICATE: Final = "bridge.pem"
HASH_ROUNDS: Final = 101
"""Rounds of PBKDF2, as in mosquitto_passwd. More would not help, since passwords are 192 random bits."""

Serial = Annotated[str, Field(pattern="^[0-9a-f]{1,40}$")]
PublicKey = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Account(_Frozen):
    """An account at the broker. ``pending``: its kit has not been written yet.

    It has either a certificate with the hexadecimal ``serial``, or a ``password``, hashed as in the broker's
    password file. ``keys``: the public keys in its kit for which there are vouchers, in hexadecimal. ``requested``: the
    keys of the request that its kit answers, null if the kit has private keys.
    """

    name: Annotated[str, Field(pattern=f"^{CLIENT_PATTERN}$")]
    roles: tuple[AccountRole, ...]
    issued: AwareDatetime
    pending: bool
    serial: Serial | None = None
    password: str | None = None
    keys: tuple[PublicKey, ...] = ()
    requested: RequestedKeys | None = None

    @property
    def identifiers(self) -> frozenset[str]:
        """Its public keys, as far as they are known: what no other account may have."""
        return frozenset(self.keys) | (frozenset() if self.requested is None else self.requested.identifiers)

    @property
    def kit_file(self) -> str:
        """The name of the file of its kit; of a bridge, of its certificate."""
        if self.name in RESERVED_NAMES:
            return f"{self.name}.zip"
        if "bridge" in self.roles:
            return f"{BROKER_DIRECTORY}-{self.name.removeprefix(BRIDGE)}/{BRIDGE_CERTIFICATE}"
        return f"{'asker' if 'asker' in self.roles else 'edge'}-{self.name}.zip"


class RevokedCertificate(_Frozen):
    """A certificate that is no longer valid since ``when``, and the account that it belonged to."""

    name: str
    serial: Serial
    when: AwareDatetime


class RevokedKeys(_Frozen):
    """The ``keys`` of an account's kit that is no longer valid since ``when``.

    ``tls``: the SHA-256 of its TLS key, if a device had requested it.
    """

    name: str
    keys: tuple[PublicKey, ...]
    tls: PublicKey | None = None
    when: AwareDatetime


class BrokerLocation(_Frozen):
    """The settings of the first provisioning, which stay the same. ``days``: the validity of certificates.

    ``broker_dir``: the directory where the broker finds its files, null for the directory where they are
    made. ``bridged``: the names of the brokers that are bridged to the one at the first of the ``hosts``.
    ``home_assistant``: the prefix under which the aggregator may announce its run to Home Assistant; null for nowhere.
    """

    hosts: Annotated[tuple[str, ...], Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    prefix: str
    passwords: bool
    days: Annotated[int, Field(ge=1)]
    broker_dir: str | None = None
    bridged: tuple[str, ...] = ()
    home_assistant: str | None = None

    @property
    def hub(self) -> str:
        """Host and port of the broker, or the hub of a star: the first of the hosts."""
        host = self.hosts[0]
        return f"{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def url(self) -> str:
        """The broker's URL in kits, with the first of the hosts."""
        return f"mqtts://{self.hub}"


class AccountRegister(_Frozen):
    """The accounts and the revoked certificates. It is immutable: each change returns another register.

    ``settled``: all other files agree with it. ``predict_group``: the secret share group of edges with the
    role ``predict`` (`fl_shared.security.kit.Kit`). ``broker_pin``: the `public_key_pin` of the broker's key in
    hexadecimal, null until its newest certificate is written. ``list_number``: of the newest list of revoked kits.
    """

    format: Literal[1] = 1
    settled: bool = False
    place: BrokerLocation
    predict_group: Annotated[str, Field(pattern=f"^{GROUP_PATTERN}$")]
    accounts: tuple[Account, ...] = ()
    broker_serial: Serial | None = None
    broker_pin: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    revoked: tuple[RevokedCertificate, ...] = ()
    revoked_keys: tuple[RevokedKeys, ...] = ()
    list_number: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """Reads the register in ``directory``, null if there is none.

        Raises ``UserError`` if it is not valid.
        """
        path = directory / FILE_NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        except ValidationError as error:
            raise UserError(
                f"{path}: {first_error(error)}; expected the file as provision wrote it"
            ) from None

    def write(self, directory: Path) -> None:
        """Writes the register to ``directory``, readable by its owner only. Raises ``OSError``."""
        write_private(
            directory / FILE_NAME, self.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"
        )

    def find(self, name: str) -> Account | None:
        """The account named ``name``, null if there is none."""
        return next((account for account in self.accounts if account.name == name), None)

    @property
    def pending(self) -> list[Account]:
        """The accounts whose kits have not been written yet."""
        return [account for account in self.accounts if account.pending]

    def with_accounts(self, accounts: Iterable[Account], now: datetime) -> AccountRegister:
        """The register with ``accounts`` added.

        They replace accounts of the same names, which are revoked.
        """
        changed = {account.name: account for account in accounts}
        replaced = [one for one in self.accounts if one.name in changed]
        unchanged = [one for one in self.accounts if one.name not in changed]
        sorted_accounts = sorted([*unchanged, *changed.values()], key=_sort_key)
        return self._with_changes(accounts=tuple(sorted_accounts))._with_revoked(replaced, now)

    def without(self, names: Iterable[str], now: datetime) -> AccountRegister:
        """The register without the accounts ``names``, whose certificates are revoked."""
        removed_names = set(names)
        removed = [account for account in self.accounts if account.name in removed_names]
        remaining = tuple(one for one in self.accounts if one.name not in removed_names)
        return self._with_changes(accounts=remaining)._with_revoked(removed, now)

    def with_kits(self, accounts: Iterable[Account]) -> AccountRegister:
        """The register in which these accounts, which it contains already, are no longer pending."""
        completed = {account.name: account.model_copy(update={"pending": False}) for account in accounts}
        return self.model_copy(
            update={"accounts": tuple(completed.get(one.name, one) for one in self.accounts)}
        )

    def with_broker(self, serial: str, now: datetime) -> AccountRegister:
        """The register with a new certificate and key for the broker; the previous certificate is revoked."""
        revoked = self.revoked
        if self.broker_serial is not None:
            revoked += (RevokedCertificate(name="the broker", serial=self.broker_serial, when=now),)
        return self._with_changes(broker_serial=serial, broker_pin=None, revoked=revoked)

    def with_broker_pin(self, pin: bytes) -> AccountRegister:
        """The register with the pin of the broker's key, whose certificate is written."""
        return self.model_copy(update={"broker_pin": pin.hex()})

    def with_new_group(self) -> AccountRegister:
        """The register with a new share group for edges with the role ``predict``."""
        return self._with_changes(predict_group=new_group())

    def _with_changes(self, **values: object) -> AccountRegister:
        return self.model_copy(update={**values, "settled": False})

    def _with_revoked(self, accounts: Iterable[Account], now: datetime) -> AccountRegister:
        """The register with the kits of ``accounts`` revoked, and the number of a new list of them.

        The number follows the clock, so that it also grows if the register comes from a backup.
        """
        old = list(accounts)
        certificates = [
            RevokedCertificate(name=account.name, serial=account.serial, when=now)
            for account in old
            if account.serial
        ]
        keys = [
            RevokedKeys(
                name=account.name,
                keys=account.keys,
                tls=None if account.requested is None else account.requested.tls_digest,
                when=now,
            )
            for account in old
            if account.keys or account.requested
        ]
        return self._with_changes(
            revoked=(*self.revoked, *certificates),
            revoked_keys=(*self.revoked_keys, *keys),
            list_number=max(self.list_number + 1, int(now.timestamp())),
        )


def _sort_key(account: Account) -> tuple[bool, bool, int, str]:
    """Sorts the aggregator and the operator first, then edges by number and name, then askers."""
    name = account.name
    number = int(name) if name.isdecimal() else 10**64
    return (name not in RESERVED_NAMES, "asker" in account.roles, number, name)


def check_name(name: str, option: str) -> str:
    """Returns ``name`` if it is valid for an edge or an asker. Raises ``UserError`` that names ``option``."""
    check_client(name, option)
    if name in RESERVED_NAMES:
        raise UserError(f"{option} {name!r}: this name is reserved for the {name}; expected another one")
    return name


def new_group() -> str:
    """A random share group, of 128 bits in hexadecimal, that cannot be guessed."""
    return secrets.token_hex(16)


def new_password() -> str:
    """A random password of 192 bits, in URL-safe base64."""
    return secrets.token_urlsafe(24)


def hash_password(password: str, salt: bytes | None = None) -> str:
    """The hash of a password as in Mosquitto's password file: PBKDF2 with HMAC-SHA-512.

    ``salt``: random if null.
    """
    salt = secrets.token_bytes(12) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, HASH_ROUNDS)
    return f"$7${HASH_ROUNDS}${b64encode(salt).decode()}${b64encode(digest).decode()}"
