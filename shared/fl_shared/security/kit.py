"""A kit: one zip file with all that an account needs, made by ``fl-aggregator provision``.

``kit.json`` says who, where and with which public keys of the others; ``ca.pem`` has the authorities that
the broker's certificate must come from; ``cert.pem`` and ``key.pem``, or a user and a password in
``kit.json``, identify the account. Anyone who has a kit can act as the account, so its file is readable for
its owner only (mode 0600), and a `Kit` does not show its secrets when it is printed.

A kit that answers the request of a device (`kit_request`) has no private keys. They are in a file that only the device
has (`device_keys`), and are read with the kit.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fl_shared.errors import UserError
from fl_shared.security.device_keys import KEYS_SUFFIX, DeviceKeys
from fl_shared.security.kit_archive import (
    CA,
    CERTIFICATE,
    DESCRIPTION,
    KEY,
    InvalidKit,
    unzip_members,
    zip_members,
)
from fl_shared.security.kit_certificates import check_authorities, check_certificate
from fl_shared.security.kit_description import FORMAT, Description, parse_description
from fl_shared.security.kit_description import AccountRole as AccountRole
from fl_shared.security.kit_request import fingerprint
from fl_shared.security.sealing import Opener, Sealer
from fl_shared.security.signatures import Signer, Verifier
from fl_shared.security.tls import Tls
from fl_shared.security.vouchers import Member, Voucher
from fl_shared.system.files import read_at_most, warn_if_others_may_read, write_private

MAX_KIT: Final = 256 * 2**10


@dataclass(frozen=True, slots=True)
class Kit:
    """What a kit contains. ``name``: the account, for an edge its client id. ``broker``: a URL.

    ``ca``, ``cert``, ``key`` are PEM. ``broker_pin``: the `public_key_pin` of the broker's key. ``signing_public``
    (Ed25519) and ``sealing_public`` (X25519) are the aggregator's raw public keys, 32 bytes. Only the aggregator's
    own kit has ``signing_private``. ``enrolment_public`` (Ed25519) is the key that vouches for accounts; no kit has its
    private half.
    ``sealing_private`` (X25519) is the account's own key, and ``voucher`` the enrolment key's signature on it and on
    the account's roles. The aggregator's own kit has no voucher, an asker's has neither. A kit has ``cert`` and
    ``key``, or ``user`` and ``password``.
    An account with the role ``train`` is a member: it proves its keys of a run with ``member_private`` (Ed25519), which
    ``member_voucher`` covers, until ``member_until`` (seconds since 1970), the certificate's end.
    ``predict_group``: the share group of the accounts with the role ``predict``, which only they know.
    ``request``: the digest of the request that the kit answers, null if its private keys were made with it.
    """

    name: str
    roles: tuple[AccountRole, ...]
    broker: str
    prefix: str
    ca: bytes = field(repr=False)
    broker_pin: bytes
    signing_public: bytes
    sealing_public: bytes
    enrolment_public: bytes
    cert: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    predict_group: str | None = field(default=None, repr=False)
    signing_private: bytes | None = field(default=None, repr=False)
    sealing_private: bytes | None = field(default=None, repr=False)
    voucher: bytes | None = field(default=None, repr=False)
    member_private: bytes | None = field(default=None, repr=False)
    member_until: int | None = None
    member_voucher: bytes | None = field(default=None, repr=False)
    request: bytes | None = None

    @classmethod
    def read(cls, path: Path, keys_file: Path | None = None) -> Self:
        """Reads a kit from a file. Raises ``UserError``, which names what is missing or wrong in it.

        ``keys_file``: of the private keys, for a kit without; null for the file beside it, ``edge-3.keys`` for
        ``edge-3.zip``.
        """
        try:
            data, mode = read_at_most(path, MAX_KIT + 1, regular=True)
        except OSError as error:
            raise UserError(f"kit {path}: {error.strerror}") from None
        warn_if_others_may_read("kit", path, mode)
        name = f"kit {path}"
        try:
            description, members = _opened(data)
            keys = None
            if description.request is not None:
                file = keys_file or path.with_suffix(KEYS_SUFFIX)
                if keys_file is None and not file.exists():
                    raise InvalidKit(
                        f"answers the request {fingerprint(description.request)}, and {file} with its private keys is "
                        "missing; expected it on the device that made the request, or --keys FILE"
                    )
                keys = DeviceKeys.read(file)
                name = f"kit {path} with the keys {file}"
            elif keys_file is not None:
                raise InvalidKit(f"has private keys of its own; expected it without --keys {keys_file}")
            return cls._from(description, members, keys)
        except InvalidKit as error:
            raise UserError(f"{name}: {error}") from None

    @classmethod
    def decode(cls, data: bytes, keys: DeviceKeys | None = None) -> Self:
        """Decodes and checks the bytes of a kit's zip file. Raises `InvalidKit`.

        ``keys``: the private keys of the device, if the kit answers its request.
        """
        return cls._from(*_opened(data), keys)

    @classmethod
    def _from(cls, description: Description, members: dict[str, bytes], keys: DeviceKeys | None) -> Self:
        values = {name: getattr(description, name) for name in Description.model_fields if name != "format"}
        values["roles"] = tuple(description.roles)
        key = members.get(KEY)
        if description.request is not None:
            if (
                key is not None
                or description.sealing_private is not None
                or description.member_private is not None
            ):
                raise InvalidKit("answers a request, but contains private keys; expected none in it")
            values |= _of_device(description, keys)
            key = values.pop("key")
        kit = cls(**values, ca=members[CA], cert=members.get(CERTIFICATE), key=key)
        kit._check()
        return kit

    def encode(self) -> bytes:
        """The bytes of the zip file; equal kits give equal bytes. Private keys of a device are left out."""
        values = {name: getattr(self, name) for name in Description.model_fields if name != "format"}
        key = self.key
        if self.request is not None:
            values["sealing_private"] = values["member_private"] = key = None
        for name, value in values.items():
            if isinstance(value, bytes):
                values[name] = b64encode(value)
        description = Description(format=FORMAT, **{**values, "roles": list(self.roles)})
        text = description.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"
        return zip_members({DESCRIPTION: text, CA: self.ca, CERTIFICATE: self.cert, KEY: key})

    def write(self, path: Path, *, replace: bool = False) -> None:
        """Writes the kit with mode 0600, completely or not at all.

        Raises ``UserError`` if ``path`` exists, unless ``replace``.
        """
        if not replace and path.exists():
            raise UserError(f"{path} already exists; --force replaces it")
        write_private(path, self.encode())

    def check_validity(self, now: datetime) -> None:
        """Raises ``UserError`` if the certificate is not valid at ``now``, which must have a time zone."""
        if self.cert is None:
            return
        cert = x509.load_pem_x509_certificate(self.cert)
        if now > cert.not_valid_after_utc:
            raise UserError(
                f"kit of {self.name!r}: its certificate expired on {cert.not_valid_after_utc:%Y-%m-%d}; "
                "get a new kit: fl-aggregator provision rotate"
            )
        if now < cert.not_valid_before_utc:
            raise UserError(
                f"kit of {self.name!r}: its certificate is valid from {cert.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, "
                f"but this machine's time is {now:%Y-%m-%d %H:%M}: is its clock right?"
            )

    def ssl_context(self) -> ssl.SSLContext:
        """A TLS context for the broker that trusts only the kit's CA and the broker's key, and sends our certificate.

        It checks the host name, and leaves no key in a file.
        """
        return Tls(self.ca, self.cert, self.key, self.broker_pin).context()

    def verifier(self) -> Verifier:
        """A verifier of the aggregator's signatures."""
        return Verifier(self.signing_public)

    def signer(self) -> Signer:
        """A signer with the aggregator's key; only for the aggregator's kit."""
        assert self.signing_private is not None
        return Signer(self.signing_private)

    def opener(self) -> Opener:
        """An opener for what accounts have sealed for this one, the aggregator or the operator."""
        assert self.sealing_private is not None
        return Opener(self.sealing_private, self._enrolment())

    def check_voucher(self, now: datetime) -> None:
        """Raises ``UserError`` if the account cannot seal messages at ``now``, which must have a time zone."""
        voucher = self._voucher()
        if voucher is None:
            raise UserError(
                f"the kit of {self.name!r} has no key to seal with; get a new kit: fl-aggregator provision rotate"
            )
        if voucher.has_expired(now.timestamp()):
            raise UserError(
                f"kit of {self.name!r}: its voucher expired on {voucher.expiry_date}; "
                "get a new kit: fl-aggregator provision rotate"
            )

    def sealer(self, recipient: bytes | None = None) -> Sealer:
        """A sealer for one connection of the account, whose kit must have a voucher.

        ``recipient``: the raw X25519 key, 32 bytes, of who opens what it seals; null for the aggregator.
        """
        assert self.sealing_private is not None
        assert self.voucher is not None
        public = self.sealing_public if recipient is None else recipient
        return Sealer(self.sealing_private, self.voucher, public)

    @property
    def public_keys(self) -> tuple[bytes, ...]:
        """The public keys, 32 bytes each, first for sealing and then of the member, as far as the account has them."""
        keys: list[X25519PrivateKey | Ed25519PrivateKey] = []
        if self.sealing_private is not None:
            keys.append(X25519PrivateKey.from_private_bytes(self.sealing_private))
        if self.member_private is not None:
            keys.append(Ed25519PrivateKey.from_private_bytes(self.member_private))
        return tuple(key.public_key().public_bytes_raw() for key in keys)

    def _voucher(self) -> Voucher | None:
        """The voucher, null if there is none, or not a valid one for the account's key."""
        if self.sealing_private is None or self.voucher is None:
            return None
        return Voucher.read(self.voucher, self.name, self.public_keys[0], self._enrolment())

    def _enrolment(self) -> Verifier:
        """A verifier of vouchers."""
        return Verifier(self.enrolment_public)

    def _check(self) -> None:
        check_authorities(self.ca)
        has_password = self.user is not None and self.password is not None
        if (self.cert is None) != (self.key is None):
            raise InvalidKit(f"{KEY if self.key is None else CERTIFICATE} is missing")
        if self.cert is None and not has_password:
            raise InvalidKit(f"contains neither {CERTIFICATE} and {KEY} nor user and password")
        if self.cert is not None and self.key is not None:
            check_certificate(self.name, self.cert, self.key, self.ca)
        if ("predict" in self.roles) != (self.predict_group is not None):
            raise InvalidKit(f"{DESCRIPTION}: expected predict_group with the role predict, and only with it")
        if "aggregator" in self.roles:
            self._check_keys()
        else:
            self._check_voucher()
        self._check_member()

    def _check_keys(self) -> None:
        """Checks the private keys of the aggregator's kit."""
        if self.signing_private is None or self.sealing_private is None:
            raise InvalidKit(f"{DESCRIPTION}: the aggregator's private keys are missing")
        pairs: tuple[tuple[str, Any, bytes], ...] = (
            ("signing", Ed25519PrivateKey.from_private_bytes(self.signing_private), self.signing_public),
            ("sealing", X25519PrivateKey.from_private_bytes(self.sealing_private), self.sealing_public),
        )
        for name, key, public in pairs:
            if key.public_key().public_bytes_raw() != public:
                raise InvalidKit(f"{DESCRIPTION}: {name}_private is not the key of {name}_public")

    def _check_voucher(self) -> None:
        if self.signing_private is not None:
            raise InvalidKit(f"{DESCRIPTION}: expected signing_private only in the aggregator's kit")
        if (self.sealing_private is None) != (self.voucher is None):
            raise InvalidKit(f"{DESCRIPTION}: expected both sealing_private and voucher, or neither")
        if self.voucher is None:
            return
        voucher = self._voucher()
        if voucher is None:
            raise InvalidKit(f"{DESCRIPTION}: voucher does not match the sealing_private of {self.name!r}")
        if voucher.roles != set(self.roles):
            named = ", ".join(sorted(voucher.roles)) or "no role"
            raise InvalidKit(f"{DESCRIPTION}: voucher is for {named}, expected the kit's roles")

    def _check_member(self) -> None:
        private, until, voucher = self.member_private, self.member_until, self.member_voucher
        if {one is not None for one in (private, until, voucher)} != {"train" in self.roles}:
            raise InvalidKit(
                f"{DESCRIPTION}: expected member_private, member_until and member_voucher with the role train, "
                "and only with it"
            )
        if private is None or until is None or voucher is None:
            return
        public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
        if not Member(self.name, public, until).is_voucher(voucher, self._enrolment()):
            raise InvalidKit(
                f"{DESCRIPTION}: member_voucher does not match the member_private of {self.name!r}"
            )


def _opened(data: bytes) -> tuple[Description, dict[str, bytes]]:
    """What ``kit.json`` says, and all members of the zip file."""
    if len(data) > MAX_KIT:
        raise InvalidKit(f"larger than {MAX_KIT} bytes; expected a kit made by fl-aggregator provision")
    members = unzip_members(data)
    for name in (DESCRIPTION, CA):
        if name not in members:
            raise InvalidKit(f"{name} is missing")
    return parse_description(members[DESCRIPTION]), members


def _of_device(description: Description, keys: DeviceKeys | None) -> dict[str, Any]:
    """The private keys of a device for the kit that answers its request, as far as the account needs them."""
    assert description.request is not None
    if keys is None:
        raise InvalidKit("answers a request; expected it with the private keys of the device")
    if keys.name != description.name:
        raise InvalidKit(f"is for {description.name!r}, but the keys are those of {keys.name!r}")
    if keys.request != description.request:
        raise InvalidKit(
            f"answers the request {fingerprint(description.request)}, but the keys are those of the request "
            f"{fingerprint(keys.request)}; expected the kit that answers that one"
        )
    return {
        "key": keys.tls.encode(),
        "sealing_private": None if description.voucher is None else keys.sealing,
        "member_private": None if description.member_voucher is None else keys.member,
    }
