"""A kit: one zip file with all that an account needs, made by ``fl-aggregator provision``.

``kit.json`` says who, where and with which public keys of the others; ``ca.pem`` has the authorities that
the broker's certificate must come from; ``cert.pem`` and ``key.pem``, or a user and a password in
``kit.json``, identify the account. Anyone who has a kit can act as the account, so its file is readable for
its owner only (mode 0600), and a `Kit` does not show its secrets when it is printed.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pydantic import AfterValidator, Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from fl_shared.errors import UserError
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.protocol.topics import CLIENT_PATTERN, GROUP_PATTERN, valid_prefix
from fl_shared.security.hpke import KEY_BYTES, check_public_key
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
from fl_shared.security.sealing import Opener, Sealer
from fl_shared.security.signatures import SIGNATURE_BYTES, Signer, Verifier, check_signing_key
from fl_shared.security.tls import PIN_BYTES, Tls
from fl_shared.security.vouchers import VOUCHER_BYTES, Member, Voucher
from fl_shared.system.files import read_at_most, warn_if_others_may_read, write_private

FORMAT: Final = 2
MAX_KIT: Final = 256 * 2**10

AccountRole = Literal["train", "evaluate", "predict", "region", "aggregator", "operator", "asker", "bridge"]
"""``region``: with ``train``, an account that may send the sum of many edges, as a regional aggregator does.
``bridge``: a broker's account at the hub of a star. It has a certificate, and no kit."""


def check_broker_url(value: str) -> str:
    """Returns ``value``. Raises ``ValueError`` unless it is a broker's URL with TLS and without a user."""
    form = "expected mqtts://host:port or wss://host:port/path"
    try:
        address = BrokerAddress.parse(value)
    except UserError:
        # Without the reason: that repeats the value, which may contain the account's password.
        raise ValueError(form) from None
    if not address.is_encrypted or address.user is not None:
        raise ValueError(form)
    return value


def _prefix(value: str) -> str:
    if not valid_prefix(value):
        raise ValueError(f"{value!r} is not a valid topic prefix")
    return value


def _format(value: int) -> int:
    if value < FORMAT:
        raise ValueError(
            f"{value}, made by an older version; get new kits for all: "
            "fl-aggregator provision rotate --all --force"
        )
    if value > FORMAT:
        raise ValueError(f"{value}, made by a newer version; expected {FORMAT}")
    return value


_RawKey = Annotated[Base64Bytes, Field(min_length=KEY_BYTES, max_length=KEY_BYTES)]
_SigningKey = Annotated[_RawKey, AfterValidator(check_signing_key)]
_Signature = Annotated[Base64Bytes, Field(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class _Description(BaseModel):
    """The content of ``kit.json``; bytes are in base64."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    format: Annotated[int, AfterValidator(_format)]
    name: Annotated[str, Field(pattern=f"^{CLIENT_PATTERN}$")]
    roles: Annotated[list[AccountRole], Field(min_length=1, max_length=4)]
    broker: Annotated[str, Field(max_length=512), AfterValidator(check_broker_url)]
    prefix: Annotated[str, Field(max_length=256), AfterValidator(_prefix)]
    broker_pin: Annotated[Base64Bytes, Field(min_length=PIN_BYTES, max_length=PIN_BYTES)]
    signing_public: _SigningKey
    enrolment_public: _SigningKey
    sealing_public: Annotated[_RawKey, AfterValidator(check_public_key)]
    signing_private: _RawKey | None = None
    sealing_private: _RawKey | None = None
    voucher: Annotated[Base64Bytes, Field(min_length=VOUCHER_BYTES, max_length=VOUCHER_BYTES)] | None = None
    member_private: _RawKey | None = None
    member_until: Annotated[int, Field(ge=0, lt=2**64)] | None = None
    member_voucher: _Signature | None = None
    predict_group: Annotated[str, Field(pattern=f"^{GROUP_PATTERN}$")] | None = None
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    password: Annotated[str, Field(min_length=1, max_length=256)] | None = None


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

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a kit from a file. Raises ``UserError``, which names what is missing or wrong in it."""
        try:
            data, mode = read_at_most(path, MAX_KIT + 1, regular=True)
        except OSError as error:
            raise UserError(f"kit {path}: {error.strerror}") from None
        warn_if_others_may_read("kit", path, mode)
        try:
            return cls.decode(data)
        except InvalidKit as error:
            raise UserError(f"kit {path}: {error}") from None

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Decodes and checks the bytes of a kit's zip file. Raises `InvalidKit`."""
        if len(data) > MAX_KIT:
            raise InvalidKit(f"larger than {MAX_KIT} bytes; expected a kit made by fl-aggregator provision")
        members = unzip_members(data)
        for name in (DESCRIPTION, CA):
            if name not in members:
                raise InvalidKit(f"{name} is missing")
        kit = cls._from(_parse_description(members[DESCRIPTION]), members)
        kit._check()
        return kit

    @classmethod
    def _from(cls, description: _Description, members: dict[str, bytes]) -> Self:
        values = {name: getattr(description, name) for name in _Description.model_fields if name != "format"}
        values["roles"] = tuple(description.roles)
        return cls(**values, ca=members[CA], cert=members.get(CERTIFICATE), key=members.get(KEY))

    def encode(self) -> bytes:
        """The bytes of the zip file; equal kits give equal bytes."""
        values = {name: getattr(self, name) for name in _Description.model_fields if name != "format"}
        for name, value in values.items():
            if isinstance(value, bytes):
                values[name] = b64encode(value)
        description = _Description(format=FORMAT, **{**values, "roles": list(self.roles)})
        text = description.model_dump_json(indent=1, exclude_none=True).encode() + b"\n"
        return zip_members({DESCRIPTION: text, CA: self.ca, CERTIFICATE: self.cert, KEY: self.key})

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
        """An opener for what accounts have sealed; only for the aggregator's kit."""
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

    def sealer(self) -> Sealer:
        """A sealer for one connection of the account, whose kit must have a voucher."""
        assert self.sealing_private is not None
        assert self.voucher is not None
        return Sealer(self.sealing_private, self.voucher, self.sealing_public)

    @property
    def public_keys(self) -> tuple[bytes, ...]:
        """The public keys, 32 bytes each, for sealing and of the member, as far as the account has them."""
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
        public = X25519PrivateKey.from_private_bytes(self.sealing_private).public_key().public_bytes_raw()
        return Voucher.read(self.voucher, self.name, public, self._enrolment())

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


def _parse_description(text: bytes) -> _Description:
    try:
        return _Description.model_validate_json(text)
    except ValidationError as error:
        # Without the input, which may be a password.
        first_error = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field_path = ".".join(str(each) for each in first_error["loc"])
        raise InvalidKit(
            f"{DESCRIPTION}: {field_path + ': ' if field_path else ''}{first_error['msg']}"
        ) from None
