"""How to reach the broker: everything that the command line says about it, in one value."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from fl_shared.errors import UserError
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.events import ConnectionSettings, Will
from fl_shared.security.tls import Tls

if TYPE_CHECKING:
    from fl_shared.security.kit import AccountRole, Kit

DEFAULT_PREFIX: Final = "fl"


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """How to connect to the broker. ``keepalive`` in seconds. It shows no secret when it is printed.

    ``tls`` is None if ``address`` is not encrypted. ``kit``: the kit from which the other values come, if
    any. ``revoked``: where the list of revoked kits is, which only an aggregator reads. Raises ``UserError`` for
    values that `ConnectionSettings` rejects.
    """

    address: BrokerAddress
    password: str | None = field(default=None, repr=False)
    keepalive: int = 30
    mqtt_client_id: str | None = None
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    prefix: str = DEFAULT_PREFIX
    kit: Kit | None = None
    revoked: Path | None = None

    def __post_init__(self) -> None:
        self.connection_settings()

    @classmethod
    def from_kit(
        cls, kit: Kit, address: BrokerAddress | None = None, *, keepalive: int, mqtt_client_id: str | None
    ) -> Self:
        """The access that a kit gives; ``address`` replaces the kit's. Raises ``UserError``."""
        kit.check_validity(datetime.now(UTC))
        address_at = address or BrokerAddress.parse(kit.broker)
        if not address_at.is_encrypted:
            raise UserError(
                f"--broker {address_at} cannot be combined with --kit: a kit needs mqtts:// or wss://"
            )
        if address_at.user is not None:
            raise UserError(
                f"--broker {address_at} cannot be combined with --kit: "
                "expected no user in the URL, since the kit names it"
            )
        account_address = BrokerAddress(
            address_at.host, address_at.port, kit.user, address_at.scheme, address_at.path
        )
        return cls(
            account_address, kit.password, keepalive, mqtt_client_id, kit.ssl_context(), kit.prefix, kit
        )

    @property
    def account(self) -> str:
        """As whom the broker knows this program, for log lines."""
        if self.address.user is not None:
            return f"user {self.address.user}"
        return "no account" if self.kit is None else f"the certificate of {self.kit.name}"

    def connection_settings(
        self, will: Will | Callable[[], Will] | None = None, **other_settings: Any
    ) -> ConnectionSettings:
        """The settings of a connection with this access; ``other_settings``: further fields of `ConnectionSettings`."""
        return ConnectionSettings(
            self.address,
            self.password,
            **{"mqtt_client_id": self.mqtt_client_id, **other_settings},
            keepalive=self.keepalive,
            tls=self.tls,
            will=will,
            account=self.account,
        )


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """The options of `options.broker_options`, and ``--revoked``; None for those that were not given."""

    broker: BrokerAddress | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    kit: Path | None = None
    keys: Path | None = None
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    prefix: str | None = None
    keepalive: int = 30
    revoked: Path | None = None

    def access(
        self,
        *,
        roles: Sequence[AccountRole] = (),
        mqtt_client_id: str | None = None,
        recorded_address: BrokerAddress | None = None,
    ) -> BrokerAccess:
        """The access that the options describe. Raises ``UserError`` for options that contradict each other.

        ``roles``: a kit must have one of them, if any are given. ``recorded_address``: the address in a run's
        file, if no option gives one and there is no kit. The file may be somebody else's, so a password is not
        sent there.
        """
        if self.kit is not None:
            return self._from_kit(self.kit, roles, mqtt_client_id)
        if self.revoked is not None:
            raise UserError(
                f"--revoked {self.revoked} needs --kit: the list is signed for the accounts of kits"
            )
        if self.keys is not None:
            raise UserError(
                f"--keys {self.keys} needs --kit: expected the kit that answers the request of these keys"
            )
        default = BrokerAddress("localhost")
        address = self.broker or recorded_address or default
        if self.password is not None and self.broker is None and address != default:
            raise UserError(
                "a password is sent only to a broker that the command line names, not to one that a file names: "
                f"if the run's broker is right, add --broker {address}"
            )
        files = {"--ca": self.ca, "--cert": self.cert, "--key": self.key}
        if not address.is_encrypted and (
            present := [name for name, path in files.items() if path is not None]
        ):
            raise UserError(
                f"{present[0]} needs mqtts:// or wss://, but the broker is {address}: nothing would be encrypted"
            )
        return BrokerAccess(
            address,
            self.password,
            self.keepalive,
            mqtt_client_id,
            Tls.read(self.ca, self.cert, self.key).context() if address.is_encrypted else None,
            self.prefix or DEFAULT_PREFIX,
        )

    def credential_arguments(self) -> list[str]:
        """The arguments that pass on the kit or the certificates to another program."""
        present = {
            "--kit": self.kit,
            "--keys": self.keys,
            "--ca": self.ca,
            "--cert": self.cert,
            "--key": self.key,
        }
        return [
            argument for name, path in present.items() if path is not None for argument in (name, str(path))
        ]

    def all_credential_arguments(self) -> list[str]:
        """`credential_arguments`, and the password's file, for commands that a user starts."""
        file = [] if self.password_file is None else ["--password-file", str(self.password_file)]
        return [*self.credential_arguments(), *file]

    def resume_arguments(self) -> list[str]:
        """The arguments with which a run can be resumed: all credentials, the broker they are for, and who is out."""
        is_secret = self.kit is not None or self.password is not None
        address = ["--broker", str(self.broker)] if is_secret and self.broker is not None else []
        revoked = [] if self.revoked is None else ["--revoked", str(self.revoked)]
        return [*address, *self.all_credential_arguments(), *revoked]

    def _from_kit(
        self,
        path: Path,
        roles: Sequence[AccountRole],
        mqtt_client_id: str | None,
    ) -> BrokerAccess:
        from fl_shared.security.kit import Kit
        from fl_shared.security.revocations import FILE_NAME

        conflicting = {
            "--ca": self.ca,
            "--cert": self.cert,
            "--key": self.key,
            "a password (--password-file, FL_PASSWORD)": self.password,
        }
        for name, value in conflicting.items():
            if value is not None:
                raise UserError(
                    f"{name} cannot be combined with --kit: the kit has its own; expected one of them"
                )
        kit = Kit.read(path, self.keys)
        if roles and not set(roles) & set(kit.roles):
            raise UserError(
                f"--kit {path}: is for {kit.name!r} ({', '.join(kit.roles)}), expected one for {' or '.join(roles)}"
            )
        if self.prefix not in (None, kit.prefix):
            raise UserError(
                f"--prefix {self.prefix} cannot be combined with --kit: "
                f"the kit's account has rights only under {kit.prefix!r}"
            )
        access = BrokerAccess.from_kit(
            kit, self.broker, keepalive=self.keepalive, mqtt_client_id=mqtt_client_id
        )
        return replace(access, revoked=self.revoked or path.with_name(FILE_NAME))
