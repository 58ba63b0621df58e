"""Checks the certificates of a kit: its authorities, and that the account's own is theirs and fits its key and name."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from fl_shared.security.kit_archive import CA, CERTIFICATE, KEY, InvalidKit


def check_authorities(ca: bytes) -> None:
    """Raises `InvalidKit` unless ``ca`` (PEM) has certificates of authorities, and no others."""
    if not all(_is_authority(one) for one in _certificates(CA, ca)):
        raise InvalidKit(f"{CA}: contains a certificate that is not an authority's")


def check_certificate(name: str, cert: bytes, key: bytes, ca: bytes) -> None:
    """Raises `InvalidKit` unless ``cert`` is for the account ``name`` and the private ``key``, and from ``ca``.

    All are PEM.
    """
    own = _certificates(CERTIFICATE, cert)[0]
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidKit(f"{KEY}: not a private key in PEM without a password") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != own.public_key().public_bytes(*form):
        raise InvalidKit(f"{KEY}: not the key of {CERTIFICATE}")
    names = [str(each.value) for each in own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [name]:
        raise InvalidKit(f"{CERTIFICATE}: is for {names}, expected the kit's name, {name!r}")
    if not any(_is_issued_by(own, each) for each in _certificates(CA, ca)):
        raise InvalidKit(f"{CERTIFICATE}: was not issued by {CA}")


def _certificates(member: str, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise InvalidKit(f"{member}: not a certificate in PEM") from None


def _is_authority(cert: x509.Certificate) -> bool:
    try:
        return cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _is_issued_by(cert: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
