"""Makes, replaces and revokes kits.

Each change writes, in this order: the register with pending accounts, the broker's certificate if it is new, the
pending kits, the register without pending accounts, the broker's files, and the settled register. The register
therefore knows every certificate that is issued, and `Provision.finish` can complete a change that was interrupted at
any point.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from fl_aggregator.tools.provision import accounts as acc
from fl_aggregator.tools.provision import broker_files, revocations
from fl_aggregator.tools.provision.accounts import Account, AccountRegister, BrokerLocation
from fl_aggregator.tools.provision.authority import Authority, new_serial
from fl_aggregator.tools.provision.kit_contents import make_kit
from fl_aggregator.tools.provision.requests import RequestedKeys, check_unused
from fl_shared.errors import UserError
from fl_shared.security.kit import AccountRole, Kit
from fl_shared.security.kit_request import KitRequest
from fl_shared.security.revocations import FILE_NAME
from fl_shared.security.vouchers import voucher_roles
from fl_shared.system.file_lock import FileLock

AUTHORITY_DIRECTORY: Final = "authority"
_LOCK: Final = ".lock"


@dataclass(slots=True)
class ProvisionResult:
    """The files of kits that a command has written, and the accounts that it has revoked."""

    kits: list[Path] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)


class Provision:
    """Changes the accounts in the directory ``out``.

    Only one process at a time may do so: see `open_provision`.
    """

    def __init__(self, out: Path, register: AccountRegister, authority: Authority) -> None:
        self.out = out
        self.register = register
        self._authority = authority
        self._now = datetime.now(UTC).replace(microsecond=0)

    @property
    def broker_directory(self) -> Path:
        """The directory of the files for the broker."""
        return self.out / acc.BROKER_DIRECTORY

    @property
    def revocation_list(self) -> Path:
        """The list of revoked kits, for the aggregator."""
        return self.out / FILE_NAME

    # --- changes ------------------------------------------------------------------------------------------

    def add(
        self,
        requested: Sequence[tuple[str, tuple[AccountRole, ...]]],
        *,
        force: bool,
        requests: Iterable[KitRequest] = (),
    ) -> ProvisionResult:
        """Creates accounts and kits for new names, each with its roles; those of ``requests`` without private keys.

        Raises ``UserError``, before it changes anything, if a name is taken, a request cannot be answered or, without
        ``force``, a kit exists.
        """
        keys = self._keys_of(requests)
        _check_unique(requested)
        for name, _ in requested:
            if self.register.find(name) is not None:
                raise UserError(f"{name!r} already has an account; for a new kit: provision rotate {name}")
        new_accounts = [self._account(name, roles, keys.get(name)) for name, roles in requested]
        return self._issue(new_accounts, force=force)

    def rotate(
        self,
        names: Sequence[str],
        *,
        force: bool,
        new_keys: bool = False,
        new_broker: bool = False,
        requests: Iterable[KitRequest] = (),
    ) -> ProvisionResult:
        """Makes new kits for accounts, and revokes their old certificates or passwords.

        ``requests``: of accounts that get new keys from their devices. An account that was requested, and has no new
        request, gets a kit for the keys that its device has.
        ``new_keys``: also replaces the keys of enrolment and aggregator and the share group for predictions, which
        only new kits contain. ``new_broker``: also replaces the broker's key, so ``names`` must be all. Raises
        ``UserError``, before it changes anything, if a name has no account or, without ``force``, a kit exists.
        """
        keys = self._keys_of(requests)
        new_accounts = [
            self._account(account.name, account.roles, keys.get(account.name, account.requested))
            for account in map(self._existing_account, dict.fromkeys([*names, *keys]))
        ]
        return self._issue(new_accounts, force=force, new_keys=new_keys, new_broker=new_broker)

    def revoke(self, names: Sequence[str]) -> ProvisionResult:
        """Removes accounts from the ACL and the password file, revokes certificates and deletes kits.

        Raises ``UserError``, before it changes anything, for names without an account, and for the aggregator
        and the operator.
        """
        revoked = [self._existing_account(name) for name in dict.fromkeys(names)]
        for account in revoked:
            if account.name == acc.AGGREGATOR:
                raise UserError(
                    "the aggregator cannot be revoked, but can get a new kit: provision rotate --aggregator"
                )
            if account.name == acc.OPERATOR:
                raise UserError(
                    "the operator cannot be revoked, but can get a new kit: provision rotate operator --force"
                )
        self._save(self.register.without(names, self._now))
        self.finish()
        for account in revoked:
            (self.out / account.kit_file).unlink(missing_ok=True)
        return ProvisionResult(revoked=[account.name for account in revoked])

    def finish(self) -> ProvisionResult:
        """Writes all files that do not agree with the register yet. Returns the kits that were pending."""
        result = ProvisionResult()
        completed: list[Account] = []
        for directory, _ in broker_files.directories(self.broker_directory, self.register.place):
            directory.mkdir(mode=0o700, exist_ok=True)
        if self.register.broker_pin is None:
            # Otherwise its files may have been moved to the broker, and a new key would not fit the kits.
            pin = broker_files.write_certificate(
                self.broker_directory, self.register, self._authority, self._now
            )
            self._save(self.register.with_broker_pin(pin))
        for account in self.register.pending:
            path = self.out / account.kit_file
            result.kits.append(path)
            if "bridge" in account.roles:
                self._write_bridge(account, path)
                completed.append(account)
            else:
                completed.append(self._write_kit(account, path))
        if completed:
            self._save(self.register.with_kits(completed))
        broker_files.write(self.broker_directory, self.register, self._authority, self._now)
        revocations.write(self.out, self.register, self._authority, self._now)
        self._save(self.register.model_copy(update={"settled": True}))
        return result

    def _write_kit(self, account: Account, path: Path) -> Account:
        """Writes the kit of a pending account, unless it is there; returns the account as it is registered then."""
        kit = _written_kit(account, path)
        if kit is None:
            password = acc.new_password() if account.serial is None else None
            kit = make_kit(account, password, self.register, self._authority, self._now)
            kit.write(path, replace=True)
        if account.requested is not None:
            return account
        keys = () if account.name == acc.AGGREGATOR else tuple(key.hex() for key in kit.public_keys)
        password = None if kit.password is None else acc.hash_password(kit.password)
        return account.model_copy(update={"keys": keys, "password": password})

    def _write_bridge(self, account: Account, certificate: Path) -> None:
        assert account.serial is not None
        serial, days = int(account.serial, 16), self.register.place.days
        if not broker_files.is_bridge_written(certificate, serial):
            issued = self._authority.issue_client(account.name, serial, self._now, days)
            broker_files.write_bridge(certificate, issued)

    # --- steps of the changes -----------------------------------------------------------------------------

    def _account(
        self, name: str, roles: tuple[AccountRole, ...], requested: RequestedKeys | None = None
    ) -> Account:
        serial = None if self.register.place.passwords else f"{new_serial():x}"
        keys: list[str] = []
        if requested is not None:
            keys += [requested.sealing] * bool(voucher_roles(roles)) + [requested.member] * ("train" in roles)
        return Account(
            name=name, roles=roles, issued=self._now, pending=True, serial=serial, requested=requested,
            keys=tuple(keys),
        )  # fmt: skip

    def _keys_of(self, requests: Iterable[KitRequest]) -> dict[str, RequestedKeys]:
        """The keys of requests, by account. Raises ``UserError`` for one that cannot be answered."""
        keys: dict[str, RequestedKeys] = {}
        for request in requests:
            name, found = request.name, check_unused(request, self.register)
            if name == acc.AGGREGATOR:
                raise UserError(
                    f"the request of {name!r} cannot be answered: its kit holds keys of the authority"
                )
            if any(not found.identifiers.isdisjoint(other.identifiers) for other in keys.values()):
                raise UserError(
                    f"the request of {name!r} has a key of another request; expected keys of its own"
                )
            if name in keys:
                raise UserError(f"two requests of {name!r}; expected one")
            keys[name] = found
        return keys

    def _issue(
        self, new_accounts: list[Account], *, force: bool, new_keys: bool = False, new_broker: bool = False
    ) -> ProvisionResult:
        existing = [path for account in new_accounts if (path := self.out / account.kit_file).exists()]
        if existing and not force:
            suffix = "" if len(existing) == 1 else f" and {len(existing) - 1} more"
            raise UserError(f"{existing[0]}{suffix} already exists; --force replaces it")
        if not new_keys:
            self._authority.check_enrolment()  # before anything changes
        register = self.register.with_new_group() if new_keys else self.register
        if new_broker:
            register = register.with_broker(f"{new_serial():x}", self._now)
        self._save(register.with_accounts(new_accounts, self._now))
        if new_keys:
            self._authority = self._authority.with_new_keys(self.out / AUTHORITY_DIRECTORY)
        return self.finish()

    def _existing_account(self, name: str) -> Account:
        account = self.register.find(name)
        if account is None:
            raise UserError(f"{name[:80]!r} has no account in {self.out / acc.FILE_NAME}")
        return account

    def _save(self, register: AccountRegister) -> None:
        register.write(self.out)
        self.register = register


@contextlib.contextmanager
def open_provision(out: Path) -> Iterator[Provision]:
    """Opens and locks the directory of an earlier `create_provision`; completes an interrupted change.

    Raises ``UserError`` if the directory contains no accounts or is in use.
    """
    if not (out / acc.FILE_NAME).exists():
        raise UserError(
            f"--out {out}: contains no {acc.FILE_NAME}; start with: provision --edges N --out {out}"
        )
    with _locked(out):
        register = AccountRegister.read(out)
        assert register is not None
        provision = Provision(out, register, Authority.open(out / AUTHORITY_DIRECTORY))
        if not register.settled:
            provision.finish()
        yield provision


def _check_unique(requested: Sequence[tuple[str, tuple[AccountRole, ...]]]) -> None:
    names: set[str] = set()
    for name, _ in requested:
        if name in names:
            raise UserError(f"account {name!r} is given twice; expected each name once, of edges and askers")
        names.add(name)


def create_provision(
    out: Path,
    location: BrokerLocation,
    requested: Sequence[tuple[str, tuple[AccountRole, ...]]],
    *,
    force: bool,
) -> tuple[Provision, ProvisionResult]:
    """Creates an authority in ``out``, and accounts for the aggregator, the operator and those ``requested``.

    If the call is interrupted, the same call completes it. Raises ``UserError`` if the directory contains
    accounts already, or was begun with other settings.
    """
    _check_unique(requested)
    with _locked(out):
        now = datetime.now(UTC).replace(microsecond=0)
        existing = AccountRegister.read(out)
        if existing is not None:
            if existing.settled:
                raise UserError(
                    f"--out {out}: already has {len(existing.accounts)} accounts; expected a new directory, "
                    "or: provision add ID"
                )
            provision = Provision(out, existing, Authority.open(out / AUTHORITY_DIRECTORY))
            different = [
                name
                for name in BrokerLocation.model_fields
                if getattr(existing.place, name) != getattr(location, name)
            ]
            if different:
                raise UserError(
                    f"--out {out}: was started with other settings ({', '.join(different)}) and not completed; "
                    "repeat the original command, or use a new directory"
                )
            return provision, provision.finish()
        authority_directory = out / AUTHORITY_DIRECTORY
        authority = (
            Authority.open(authority_directory)
            if authority_directory.exists()
            else Authority.create(authority_directory, now)
        )
        provision = Provision(out, AccountRegister(place=location, predict_group=acc.new_group()), authority)
        provision.register = provision.register.with_broker(f"{new_serial():x}", now)
        reserved: list[tuple[str, tuple[AccountRole, ...]]] = [
            (acc.AGGREGATOR, ("aggregator",)),
            (acc.OPERATOR, ("operator",)),
            *((acc.BRIDGE + name, ("bridge",)) for name in location.bridged),
        ]
        return provision, provision.add([*reserved, *requested], force=force)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(out / _LOCK)
    except BlockingIOError:
        raise UserError(f"--out {out}: in use by another fl-aggregator provision") from None
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from None
    try:
        yield
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}: {error.filename}") from None
    finally:
        lock.release()


def _written_kit(account: Account, path: Path) -> Kit | None:
    """The kit at ``path``, if it contains the account's newest certificate, and private keys."""
    if account.serial is None or account.requested is not None or not path.exists():
        return None  # a kit that answers a request is made again
    try:
        kit = Kit.read(path)
    except UserError:
        return None
    if kit.cert is None:
        return None
    is_newest = x509.load_pem_x509_certificate(kit.cert).serial_number == int(account.serial, 16)
    return kit if is_newest else None
