"""Authorities and certificates for tests, good ones and every kind of bad one, in PEM files."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
HOSTS = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, each in a file. ``serial``: the number under which it is revoked."""

    cert: Path
    key: Path
    serial: int

    @property
    def options(self) -> list[str]:
        """The options that give both files to our programs."""
        return ["--cert", str(self.cert), "--key", str(self.key)]


class Authority:
    """Issues certificates; its own is ``ca``."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._key = generate_private_key(SECP256R1())
        self._name = _name(name)
        now = datetime.now(UTC)
        self._cert = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 400 * DAY)
            .not_valid_after(now + 400 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self._cert.public_bytes(Encoding.PEM))

    def broker(
        self, file: str = "broker", *, hosts: Sequence[str] = HOSTS, begins: int = -1, ends: int = 30
    ) -> Pair:
        """``begins``, ``ends``: days from now."""
        return self._issue(file, "broker", ExtendedKeyUsageOID.SERVER_AUTH, hosts, begins, ends)

    def client(self, name: str, *, begins: int = -1, ends: int = 30) -> Pair:
        return self._issue(name, name, ExtendedKeyUsageOID.CLIENT_AUTH, (), begins, ends)

    def revoking(self, *pairs: Pair) -> Path:
        """A revocation list of these certificates."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - DAY).next_update(now + 30 * DAY)
        for pair in pairs:
            one = x509.RevokedCertificateBuilder().serial_number(pair.serial).revocation_date(now - DAY)
            builder = builder.add_revoked_certificate(one.build())
        file = self._directory / "crl.pem"
        file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return file

    def _issue(
        self,
        file: str,
        name: str,
        purpose: x509.ObjectIdentifier,
        hosts: Sequence[str],
        begins: int,
        ends: int,
    ) -> Pair:
        key = generate_private_key(SECP256R1())
        cert = _certificate(name, purpose, hosts, begins, ends, key, self._name).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
        )
        return _written(self._directory, file, cert.sign(self._key, hashes.SHA256()), key)


def self_signed(directory: Path, *, hosts: Sequence[str] = HOSTS) -> Pair:
    """A broker's certificate that is not from a trusted authority."""
    key = generate_private_key(SECP256R1())
    cert = _certificate("broker", ExtendedKeyUsageOID.SERVER_AUTH, hosts, -1, 30, key, _name("broker"))
    return _written(directory, "self-signed", cert.sign(key, hashes.SHA256()), key)


def with_password(pair: Pair, password: bytes, file: Path) -> Path:
    """``pair``'s key, encrypted."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(pair.key.read_bytes(), None)
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)))
    file.chmod(0o600)
    return file


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(
    name: str,
    purpose: x509.ObjectIdentifier,
    hosts: Sequence[str],
    begins: int,
    ends: int,
    key: EllipticCurvePrivateKey,
    issuer: x509.Name,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * DAY)
        .not_valid_after(now + ends * DAY)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if hosts:
        names = x509.SubjectAlternativeName([_general(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    return builder


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _written(directory: Path, file: str, cert: x509.Certificate, key: EllipticCurvePrivateKey) -> Pair:
    pair = Pair(directory / f"{file}.crt", directory / f"{file}.key", cert.serial_number)
    pair.cert.write_bytes(cert.public_bytes(Encoding.PEM))
    pair.key.touch(mode=0o600)
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return pair
