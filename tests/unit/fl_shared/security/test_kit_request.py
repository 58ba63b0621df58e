"""A request for a kit proves that its maker has each private key, and asks for nothing but a name and keys."""

from __future__ import annotations

import json
from base64 import b64encode, encodebytes
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_shared.security.key_conversion import x25519_private, x25519_public
from fl_shared.security.kit_request import MAX_REQUEST, InvalidRequest, KitRequest, _signed_bytes, fingerprint

TLS, OTHER_TLS = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
SEALING, MEMBER, OTHER = (Ed25519PrivateKey.generate() for _ in range(3))
REQUEST = KitRequest.make("ward-3", TLS, SEALING, MEMBER)
VICTIM = KitRequest.make("victim", OTHER_TLS, Ed25519PrivateKey.generate(), OTHER)

Builder = x509.CertificateSigningRequestBuilder


def named(*names: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])


def with_csr(
    subject: x509.Name,
    extend: Callable[[Builder], Builder] = lambda builder: builder,
    key: Any = TLS,
    sealing: Ed25519PrivateKey = SEALING,
    algorithm: Any = None,
) -> bytes:
    """The file of a request with this request for a certificate, which all keys have signed."""
    csr = extend(Builder().subject_name(subject)).sign(key, algorithm or hashes.SHA256())
    publics = [one.public_key().public_bytes_raw() for one in (sealing, MEMBER)]
    signed = _signed_bytes("ward-3", csr, *publics)
    return KitRequest.model_construct(
        name="ward-3",
        csr=csr.public_bytes(Encoding.PEM).decode(),
        sealing=publics[0],
        member=publics[1],
        tls_proof=TLS.sign(signed, ec.ECDSA(hashes.SHA256())),
        sealing_proof=sealing.sign(signed),
        member_proof=MEMBER.sign(signed),
    ).encode()


def changed(**members: Any) -> bytes:
    return REQUEST.model_copy(update=members).encode()


def test_a_request_is_read_as_it_was_made() -> None:
    content = REQUEST.encode()
    assert len(content) < MAX_REQUEST // 4
    read = KitRequest.read(content)
    assert (read, read.digest) == (REQUEST, REQUEST.digest)
    assert read.tls_public == TLS.public_key()
    assert KitRequest.read(with_csr(named("ward-3"))).name == "ward-3"
    assert fingerprint(bytes(range(32))) == "0001 0203 0405 0607 0809 0a0b 0c0d 0e0f"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(REQUEST.encode()) - 1), st.integers(1, 255))
def test_no_byte_of_it_can_be_changed(place: int, by: int) -> None:
    content = bytearray(REQUEST.encode())
    content[place] ^= by
    with pytest.raises(InvalidRequest):
        KitRequest.read(bytes(content))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_nothing_else_is_one(content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        KitRequest.read(content)


@pytest.mark.parametrize(
    ("extend", "said"),
    [
        (lambda b: b.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True), "1.2.840"),
        (lambda b: b.add_extension(x509.SubjectAlternativeName([x509.DNSName("broker")]), critical=False), "1.2.840"),
        (lambda b: b.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False), "1.2"),
        (lambda b: b.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"please"), "1.2.840"),
    ],
    ids=["an authority", "another host", "another purpose", "a password"],
)  # fmt: skip
def test_a_certificate_is_asked_for_without_extensions(
    extend: Callable[[Builder], Builder], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=f"csr: asks for {said}.*; expected no extensions"):
        KitRequest.read(with_csr(named("ward-3"), extend))


@pytest.mark.parametrize(
    "subject",
    [
        named("aggregator"),
        named("ward-3", "aggregator"),
        named("aggregator", "ward-3"),
        x509.Name([]),
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ward-3")]),
        x509.Name([*named("ward-3"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "o")]),
        x509.Name([x509.RelativeDistinguishedName([*named("ward-3"), *named("aggregator")])]),
    ],
    ids=str,
)
def test_a_certificate_is_asked_for_the_name_alone(subject: x509.Name) -> None:
    with pytest.raises(InvalidRequest, match=r"csr: is for '.*', expected CN=ward-3 and no other name"):
        KitRequest.read(with_csr(subject))


def test_a_request_for_a_certificate_of_another_version_is_none() -> None:
    der = bytearray(x509.load_pem_x509_csr(REQUEST.csr.encode()).public_bytes(Encoding.DER))
    version = der.index(b"\x02\x01\x00") + 2  # cryptography does not raise a ValueError for it
    der[version] = 1
    pem = (
        "-----BEGIN CERTIFICATE REQUEST-----\n"
        + encodebytes(der).decode()
        + "-----END CERTIFICATE REQUEST-----\n"
    )
    with pytest.raises(InvalidRequest, match="csr: not a request for a certificate in PEM"):
        KitRequest.read(changed(csr=pem))


def test_a_certificate_is_asked_for_a_key_on_one_curve() -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    for key in (rsa_key, ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(InvalidRequest, match="csr: expected a key on the curve P-256"):
            KitRequest.read(with_csr(named("ward-3"), key=key))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed(csr=VICTIM.csr), "csr: is for 'CN=victim'"),
        (changed(name="victim", csr=VICTIM.csr), "tls_proof: not a signature by the key of csr"),
        (changed(sealing=VICTIM.sealing), "tls_proof: not a signature"),
        (changed(member=VICTIM.member), "tls_proof: not a signature"),
        (changed(sealing_proof=VICTIM.sealing_proof), "sealing_proof: not a signature by the key sealing"),
        (changed(member_proof=VICTIM.member_proof), "member_proof: not a signature by the key member"),
        (changed(tls_proof=VICTIM.tls_proof), "tls_proof: not a signature by the key of csr"),
        (changed(name="ward-4"), "csr: is for 'CN=ward-3', expected CN=ward-4"),
        (with_csr(named("ward-3"), key=OTHER_TLS), "tls_proof: not a signature by the key of csr"),
        (with_csr(named("ward-3"), sealing=MEMBER), "member: the same key as sealing"),
        (changed(csr=REQUEST.csr + REQUEST.csr), "csr: expected it in DER within PEM, and nothing beside it"),
        (changed(csr="x" * 100), "csr: not a request for a certificate"),
        (changed(sealing=bytes(32)), "sealing: Value error, a point of small order"),
        (changed(member=b"\2" + bytes(31)), "member: Value error, not a point of the curve"),
        (b" " + REQUEST.encode(), "changed on its way"),
        (REQUEST.encode().replace(b"\n", b"\r\n"), "changed on its way"),
        (REQUEST.encode().replace(b'"format": 1', b'"format": 2'), "format: "),
        (REQUEST.encode().replace(b'"format": 1', b'"format": 1,"roles":["operator"]'), "roles: "),
        (REQUEST.encode().replace(b'"format": 1', b'"format": 1,"format": 1'), "changed on its way"),
        (b" " * (MAX_REQUEST + 1), "larger than"),
    ],
)  # fmt: skip
def test_a_key_of_somebody_else_or_another_form_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        KitRequest.read(content)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_a_request_of_one_name_is_none_of_another() -> None:
    """Who takes the whole of somebody's file can change the name in it, but no signature."""
    fields = json.loads(REQUEST.encode())
    csr = Builder().subject_name(named("ward-4")).sign(OTHER_TLS, hashes.SHA256())
    fields |= {"name": "ward-4", "csr": csr.public_bytes(Encoding.PEM).decode()}
    signed = _signed_bytes("ward-4", csr, REQUEST.sealing, REQUEST.member)
    fields["tls_proof"] = b64encode(OTHER_TLS.sign(signed, ec.ECDSA(hashes.SHA256()))).decode()
    with pytest.raises(InvalidRequest, match="sealing_proof: not a signature by the key sealing"):
        KitRequest.read(json.dumps(fields, indent=1, separators=(",", ": ")).encode() + b"\n")


@given(st.binary(min_size=32, max_size=32))
def test_an_ed25519_pair_is_an_x25519_pair(private: bytes) -> None:
    public = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    converted = X25519PrivateKey.from_private_bytes(x25519_private(private))
    assert converted.public_key().public_bytes_raw() == x25519_public(public)
