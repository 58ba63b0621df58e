"""A request for a kit: the public keys of a device, and the proof that it has the private ones (protocol, 14.5).

The device makes it with `device_keys.generate`, and whoever runs ``fl-aggregator provision`` answers it with a kit that
has no private keys. The file is public. It must arrive unchanged: its `fingerprint` is what the two sides compare.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from fl_shared.protocol.topics import CLIENT_PATTERN
from fl_shared.security.hpke import KEY_BYTES
from fl_shared.security.key_conversion import x25519_public
from fl_shared.security.key_fields import Signature, SigningKey
from fl_shared.security.signatures import Verifier
from fl_shared.system.validation import first_error

MAX_REQUEST: Final = 8 * 2**10
"""Bytes of the largest request; a usual one has 1,100."""
_MARK: Final = b"fl-mqtt kit request 1\0"
"""The start of what all three keys sign. No message and no voucher starts so."""
_CSR: Final = "csr"


class InvalidRequest(Exception):
    """A request is not valid. The text says why, but does not name the file."""


class KitRequest(BaseModel):
    """A request. ``name``: of the account. ``csr``: the request for a certificate (PKCS #10), in PEM, of an EC key.

    ``sealing``, ``member``: raw Ed25519 public keys. The account seals with the first one's `x25519_public`. The proofs
    are signatures, by each key, of all three keys and the name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=f"^{CLIENT_PATTERN}$")]
    csr: Annotated[str, Field(max_length=2048)]
    sealing: SigningKey
    member: SigningKey
    tls_proof: Annotated[Base64Bytes, Field(max_length=80)]
    sealing_proof: Signature
    member_proof: Signature

    @classmethod
    def make(
        cls, name: str, tls: ec.EllipticCurvePrivateKey, sealing: Ed25519PrivateKey, member: Ed25519PrivateKey
    ) -> KitRequest:
        """The request for these private keys."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(tls, hashes.SHA256())
        publics = [key.public_key().public_bytes_raw() for key in (sealing, member)]
        signed = _signed_bytes(name, csr, *publics)
        return cls.model_construct(
            name=name,
            csr=csr.public_bytes(Encoding.PEM).decode(),
            sealing=publics[0],
            member=publics[1],
            tls_proof=tls.sign(signed, ec.ECDSA(hashes.SHA256())),
            sealing_proof=sealing.sign(signed),
            member_proof=member.sign(signed),
        )

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Reads the content of a file and checks all of it. Raises `InvalidRequest`."""
        if len(content) > MAX_REQUEST:
            raise InvalidRequest(f"larger than {MAX_REQUEST} bytes; expected a request for a kit")
        try:
            request = cls.model_validate_json(content)
        except ValidationError as error:
            raise InvalidRequest(first_error(error)) from None
        if request.encode() != content:
            raise InvalidRequest(
                "changed on its way; expected the file, byte for byte, as request-kit wrote it"
            )
        request._check_proofs(request._checked_csr())
        return request

    def encode(self) -> bytes:
        """The content of the file. A request has only one."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @property
    def digest(self) -> bytes:
        """The SHA-256 (32 bytes) of the file, which the kit that answers it names."""
        return hashlib.sha256(self.encode()).digest()

    @property
    def sealing_public(self) -> bytes:
        """The account's raw X25519 key, 32 bytes."""
        return x25519_public(self.sealing)

    @property
    def tls_public(self) -> ec.EllipticCurvePublicKey:
        """The key that the certificate is for, of a request that has been read."""
        public = x509.load_pem_x509_csr(self.csr.encode()).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return public

    def _checked_csr(self) -> x509.CertificateSigningRequest:
        """The request for a certificate, which may say nothing but the name and the key: provision decides the rest."""
        try:
            csr = x509.load_pem_x509_csr(self.csr.encode())
            is_signed = csr.is_signature_valid
            public, names, attributes = csr.public_key(), list(csr.subject), list(csr.attributes)
        except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
            raise InvalidRequest(f"{_CSR}: not a request for a certificate in PEM") from None
        if csr.public_bytes(Encoding.PEM) != self.csr.encode():
            raise InvalidRequest(f"{_CSR}: expected it in DER within PEM, and nothing beside it")
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise InvalidRequest(f"{_CSR}: expected a key on the curve P-256")
        if [(one.oid, one.value) for one in names] != [(NameOID.COMMON_NAME, self.name)]:
            raise InvalidRequest(
                f"{_CSR}: is for {csr.subject.rfc4514_string()[:80]!r}, expected CN={self.name} and no other name"
            )
        if attributes:
            raise InvalidRequest(
                f"{_CSR}: asks for {attributes[0].oid.dotted_string}; expected no extensions and no other attributes"
            )
        if not is_signed:
            raise InvalidRequest(f"{_CSR}: not signed by its own key")
        return csr

    def _check_proofs(self, csr: x509.CertificateSigningRequest) -> None:
        if self.sealing == self.member:
            raise InvalidRequest("member: the same key as sealing, expected another one")
        signed = _signed_bytes(self.name, csr, self.sealing, self.member)
        public = csr.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        try:
            public.verify(self.tls_proof, signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise InvalidRequest("tls_proof: not a signature by the key of csr") from None
        for field in ("sealing", "member"):
            if not Verifier(getattr(self, field)).is_signature_valid(signed, getattr(self, f"{field}_proof")):
                raise InvalidRequest(f"{field}_proof: not a signature by the key {field}")


def fingerprint(digest: bytes) -> str:
    """The first half of a request's digest, in groups, for two people to compare."""
    text = digest[: KEY_BYTES // 2].hex()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def _signed_bytes(name: str, csr: x509.CertificateSigningRequest, sealing: bytes, member: bytes) -> bytes:
    der = csr.public_bytes(Encoding.DER)
    return b"".join((_MARK, name.encode(), b"\0", sealing, member, der))
