"""The certificate authority that issues all certificates, the enrolment key, and the aggregator's own keys.

Its directory holds ``ca.key``, ``ca.pem``, ``enrolment.pem``, ``signing.key`` and ``sealing.key``. With these keys, one
can pose as any account: the directory stays on the machine where kits are made, and no program needs it to run. Copies
of the last two are in the aggregator's kit; the first three are nowhere else.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fl_aggregator.tools.provision.accounts import RevokedCertificate
from fl_aggregator.tools.provision.enrolment import Enrolment
from fl_shared.errors import UserError
from fl_shared.system.files import write_private

AUTHORITY_DAYS: Final = 20 * 365
"""Validity of the CA and its revocation list.

With an expired list, the broker would refuse all certificates.
"""
BACKDATING: Final = timedelta(days=1)
"""Certificates are valid from a day before they are issued, since clocks of devices may be slow."""
_ENROLMENT: Final = "enrolment.pem"
_FILES: Final = ("ca.key", "signing.key", "sealing.key", _ENROLMENT, "ca.pem")


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate and its private key, in PEM."""

    cert: bytes
    key: bytes


class Authority:
    """A certificate authority, made by `create` or `open`, with the enrolment key and the aggregator's keys.

    ``signing`` and ``sealing`` are the aggregator's private keys. ``enrolment``: null if its file is missing.
    """

    def __init__(
        self,
        cert: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        signing: Ed25519PrivateKey,
        sealing: X25519PrivateKey,
        enrolment: Ed25519PrivateKey | None,
    ) -> None:
        self._cert = cert
        self._key = key
        self._enrolment = enrolment
        self.signing = signing
        self.sealing = sealing

    @classmethod
    def create(cls, directory: Path, now: datetime) -> Self:
        """Creates an authority and writes its files to ``directory``, which must not exist.

        Raises ``OSError``.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        name = _common_name(f"fl-mqtt authority {secrets.token_hex(4)}")
        days = timedelta(days=AUTHORITY_DAYS)
        cert = (
            _builder(name, name, key.public_key(), key.public_key(), new_serial(), now, days)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        authority = cls(cert, key, *_new_keys())
        temporary = directory.with_name(f".{directory.name}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(mode=0o700, parents=True)
        authority._write(temporary)
        temporary.rename(directory)
        return authority

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Reads the authority in ``directory``. Raises ``UserError`` if a file is missing or not valid.

        If only the file of the enrolment key is missing, `with_new_keys` can make another one.
        """
        contents: dict[str, bytes] = {}
        try:
            for file in _FILES:
                if file != _ENROLMENT or (directory / file).exists():
                    contents[file] = (directory / file).read_bytes()
        except OSError as error:
            raise UserError(f"authority {directory}: {error.filename}: {error.strerror}") from None
        try:
            cert = x509.load_pem_x509_certificate(contents["ca.pem"])
            key = load_pem_private_key(contents["ca.key"], None)
            signing = load_pem_private_key(contents["signing.key"], None)
            sealing = load_pem_private_key(contents["sealing.key"], None)
            enrolment = load_pem_private_key(contents[_ENROLMENT], None) if _ENROLMENT in contents else None
        except (ValueError, TypeError) as error:
            raise UserError(
                f"authority {directory}: expected the PEM files as provision wrote them: {error}"
            ) from None
        if (
            not isinstance(key, ec.EllipticCurvePrivateKey)
            or not isinstance(signing, Ed25519PrivateKey)
            or not isinstance(sealing, X25519PrivateKey)
            or not isinstance(enrolment, Ed25519PrivateKey | None)
            or key.public_key() != cert.public_key()
        ):
            raise UserError(f"authority {directory}: its keys do not match its certificate")
        return cls(cert, key, signing, sealing, enrolment)

    def with_new_keys(self, directory: Path) -> Authority:
        """The same authority with new keys for enrolment and the aggregator, which replace those in ``directory``."""
        authority = Authority(self._cert, self._key, *_new_keys())
        authority._write(directory)
        return authority

    @property
    def enrolment(self) -> Enrolment:
        """What vouches for accounts. Raises ``UserError`` if its key's file was missing."""
        self.check_enrolment()
        assert self._enrolment is not None
        return Enrolment(self._enrolment)

    def check_enrolment(self) -> None:
        """Raises ``UserError`` if the file of the enrolment key was missing."""
        if self._enrolment is None:
            raise UserError(
                f"the authority has no {_ENROLMENT}: put it back from a backup, or make a new one and new kits for "
                "all: provision rotate --all --force"
            )

    @property
    def can_enrol(self) -> bool:
        """Whether the file of the enrolment key was there."""
        return self._enrolment is not None

    @property
    def pem(self) -> bytes:
        """The certificate of the authority."""
        return self._cert.public_bytes(Encoding.PEM)

    def issue_client(self, name: str, serial: int, now: datetime, days: int) -> IssuedCertificate:
        """Issues the certificate of an account, whose name is the common name.

        It is valid for clients only.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        return IssuedCertificate(self.certify_client(name, key.public_key(), serial, now, days), _pem(key))

    def certify_client(
        self, name: str, public: ec.EllipticCurvePublicKey, serial: int, now: datetime, days: int
    ) -> bytes:
        """The certificate, in PEM, of an account that has its key already."""
        return self._certify(name, public, serial, now, days, ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def issue_broker(self, hosts: Sequence[str], serial: int, now: datetime, days: int) -> IssuedCertificate:
        """Issues the certificate of the broker at ``hosts``, names or addresses.

        It is valid for servers only.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
        cert = self._certify(hosts[0][:64], key.public_key(), serial, now, days, purpose, hosts)
        return IssuedCertificate(cert, _pem(key))

    def revocation_list(self, revoked: Iterable[RevokedCertificate], now: datetime) -> bytes:
        """The list of revoked certificates (RFC 5280), in PEM."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._cert.subject)
            .last_update(now - BACKDATING)
            .next_update(self._cert.not_valid_after_utc)
            .add_extension(_authority_key_identifier(self._key.public_key()), critical=False)
            .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        )
        for entry in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(int(entry.serial, 16))
                .revocation_date(entry.when.astimezone(UTC))
                .build()
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def _certify(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey,
        serial: int,
        now: datetime,
        days: int,
        purpose: x509.ObjectIdentifier,
        hosts: Sequence[str],
    ) -> bytes:
        builder = (
            _builder(
                _common_name(name),
                self._cert.subject,
                public,
                self._key.public_key(),
                serial,
                now,
                self._validity(now, days),
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_alternative_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def expiry(self, now: datetime, days: int) -> int:
        """When a certificate that is issued ``now`` for ``days`` expires, in seconds since 1970."""
        return int((now + self._validity(now, days)).timestamp())

    def _validity(self, now: datetime, days: int) -> timedelta:
        """Of what is issued now: nothing is valid after the authority has expired."""
        return min(timedelta(days=days), self._cert.not_valid_after_utc - now)

    def _write(self, directory: Path) -> None:
        assert self._enrolment is not None
        contents = (_pem(self._key), _pem(self.signing), _pem(self.sealing), _pem(self._enrolment), self.pem)
        for file, content in zip(_FILES, contents, strict=True):
            write_private(directory / file, content)
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _new_keys() -> tuple[Ed25519PrivateKey, X25519PrivateKey, Ed25519PrivateKey]:
    """Random keys: the aggregator's for signing and sealing, and that of enrolment."""
    return Ed25519PrivateKey.generate(), X25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def new_serial() -> int:
    """A serial number for a certificate: positive, random, at most 159 bits."""
    return x509.random_serial_number()


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    serial: int,
    now: datetime,
    validity: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(now - BACKDATING)
        .not_valid_after(now + validity)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_authority_key_identifier(issuer_key), critical=False)
    )


def _authority_key_identifier(public: ec.EllipticCurvePublicKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey | X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
