"""The register: who has an account, with which roles, and which certificates are valid no more.

It is one file, ``accounts.json``, from which all files of the broker follow. An account whose kit is not written yet
is ``pending`` there, and the whole is ``settled`` at the end of each change: whatever interrupts it, the next command
goes on with it.
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

from fl_shared.errors import UserError
from fl_shared.protocol import topics
from fl_shared.protocol.topics import CLIENT_PATTERN, GROUP_PATTERN, valid_client
from fl_shared.security.kit import AccountRole
from fl_shared.system.files import write_private

FILE_NAME: Final = "accounts.json"
AGGREGATOR: Final = "aggregator"
OPERATOR: Final = topics.OPERATOR
RESERVED_NAMES: Final = (AGGREGATOR, OPERATOR)
HASH_ROUNDS: Final = 101
"""As mosquitto_passwd has it. Passwords are 192 random bits, which no number of rounds makes harder to guess."""

Serial = Annotated[str, Field(pattern="^[0-9a-f]{1,40}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Account(_Frozen):
    """``serial`` (hexadecimal) of its certificate, or ``password``, as the broker's password file has it."""

    name: Annotated[str, Field(pattern=f"^{CLIENT_PATTERN}$")]
    roles: tuple[AccountRole, ...]
    issued: AwareDatetime
    pending: bool
    serial: Serial | None = None
    password: str | None = None

    @property
    def kit_file(self) -> str:
        """The name of its kit's file."""
        if self.name in RESERVED_NAMES:
            return f"{self.name}.zip"
        return f"{'asker' if 'asker' in self.roles else 'edge'}-{self.name}.zip"


class RevokedCertificate(_Frozen):
    """A certificate that is valid no more."""

    name: str
    serial: Serial
    when: AwareDatetime


class BrokerLocation(_Frozen):
    """What is said once, at the first provisioning. ``days``: how long a certificate is valid.

    ``broker_dir``: where the broker finds its files, null for where they are made.
    """

    hosts: Annotated[tuple[str, ...], Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    prefix: str
    passwords: bool
    days: Annotated[int, Field(ge=1)]
    broker_dir: str | None = None

    @property
    def url(self) -> str:
        """Where kits say that the broker is."""
        host = self.hosts[0]
        return f"mqtts://{f'[{host}]' if ':' in host else host}:{self.port}"


class AccountRegister(_Frozen):
    """Immutable: each change gives another one, for `write`. ``settled``: all other files are as it says.

    ``predict_group``: the secret of those who predict (`fl_shared.security.kit.Kit`).
    """

    format: Literal[1] = 1
    settled: bool = False
    place: BrokerLocation
    predict_group: Annotated[str, Field(pattern=f"^{GROUP_PATTERN}$")]
    accounts: tuple[Account, ...] = ()
    broker_serial: Serial | None = None
    revoked: tuple[RevokedCertificate, ...] = ()

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """That of ``directory``, null if there is none. Raises ``UserError``."""
        path = directory / FILE_NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(str(each) for each in first["loc"])
            raise UserError(
                f"{path}: {where}: {first['msg']}; expected the file as provision wrote it"
            ) from None

    def write(self, directory: Path) -> None:
        write_private(
            directory / FILE_NAME, self.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"
        )

    def find(self, name: str) -> Account | None:
        return next((one for one in self.accounts if one.name == name), None)

    @property
    def pending(self) -> list[Account]:
        return [one for one in self.accounts if one.pending]

    def with_accounts(self, accounts: Iterable[Account], now: datetime) -> AccountRegister:
        """With these, in the place of those of the same names, whose certificates are then revoked."""
        changed = {one.name: one for one in accounts}
        gone = [one for one in self.accounts if one.name in changed]
        kept = [one for one in self.accounts if one.name not in changed]
        ordered = sorted([*kept, *changed.values()], key=_sort_key)
        return self._with_changes(accounts=tuple(ordered), revoked=self._with_revoked(gone, now))

    def without(self, names: Iterable[str], now: datetime) -> AccountRegister:
        leaving = set(names)
        gone = [one for one in self.accounts if one.name in leaving]
        kept = tuple(one for one in self.accounts if one.name not in leaving)
        return self._with_changes(accounts=kept, revoked=self._with_revoked(gone, now))

    def with_kits(self, accounts: Iterable[Account]) -> AccountRegister:
        """These, which are there already, have their kits."""
        done = {one.name: one.model_copy(update={"pending": False}) for one in accounts}
        return self.model_copy(update={"accounts": tuple(done.get(one.name, one) for one in self.accounts)})

    def with_broker(self, serial: str, now: datetime) -> AccountRegister:
        """With this certificate for the broker; the one before is revoked."""
        revoked = self.revoked
        if self.broker_serial is not None:
            revoked += (RevokedCertificate(name="the broker", serial=self.broker_serial, when=now),)
        return self._with_changes(broker_serial=serial, revoked=revoked)

    def with_new_group(self) -> AccountRegister:
        """With another share group for those who predict."""
        return self._with_changes(predict_group=new_group())

    def _with_changes(self, **values: object) -> AccountRegister:
        return self.model_copy(update={**values, "settled": False})

    def _with_revoked(self, accounts: Iterable[Account], now: datetime) -> tuple[RevokedCertificate, ...]:
        fresh = [
            RevokedCertificate(name=one.name, serial=one.serial, when=now) for one in accounts if one.serial
        ]
        return (*self.revoked, *fresh)


def _sort_key(account: Account) -> tuple[bool, bool, int, str]:
    """The aggregator and the operator first, then edges by number and name, then askers."""
    name = account.name
    number = int(name) if name.isdecimal() else 10**64
    return (name not in RESERVED_NAMES, "asker" in account.roles, number, name)


def check_name(name: str, option: str) -> str:
    """``name`` if an edge or an asker may be called so. Raises ``UserError``."""
    if not valid_client(name):
        raise UserError(f"{option} {name[:80]!r}: expected 1 to 64 characters of A-Z a-z 0-9 _ -")
    if name in RESERVED_NAMES:
        raise UserError(f"{option} {name!r}: this name is reserved for the {name}; expected another one")
    return name


def new_group() -> str:
    """A share group that nobody can guess."""
    return secrets.token_hex(16)


def new_password() -> str:
    return secrets.token_urlsafe(24)


def hash_password(password: str, salt: bytes | None = None) -> str:
    """As a line of Mosquitto's password file has it behind the colon: PBKDF2 with HMAC-SHA-512."""
    salt = secrets.token_bytes(12) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, HASH_ROUNDS)
    return f"$7${HASH_ROUNDS}${b64encode(salt).decode()}${b64encode(digest).decode()}"
