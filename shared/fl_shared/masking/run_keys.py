"""The keys of an edge in one run. Its member key signs them, which the enrolment key has certified.

On the wire they are one string, base64url without padding (RFC 4648, section 5), of::

    mask, X25519 (32)  agree, Ed25519 (32)
    and with a kit:  member, Ed25519 (32)  until (8, big-endian)  voucher (64)  proof (64)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Final, Self

from fl_shared.security.signatures import Signer, Verifier
from fl_shared.security.vouchers import member_bytes
from fl_shared.system.base64url import decoded, encoded

if TYPE_CHECKING:  # what needs no keys runs without this package, which takes 8 MB
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

_KEY: Final = 32
_UNTIL: Final = 8
_SIGNATURE: Final = 64
_PLAIN: Final = 2 * _KEY
_CERTIFIED: Final = _PLAIN + _KEY + _UNTIL + 2 * _SIGNATURE
_PROOF: Final = b"fl-mqtt run keys 1\0"
_PRIME: Final = 2**255 - 19


class BadRunKeys(Exception):
    """Keys are not certified as they must be."""


@dataclass(frozen=True, slots=True)
class MemberCredential:
    """What a kit says of an edge. ``private``: a raw Ed25519 key, 32 bytes; ``until``: seconds since 1970.

    ``voucher``: the enrolment key's signature, 64 bytes.
    """

    private: bytes = field(repr=False)
    until: int
    voucher: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    """Who has signed the keys (``proof``), and the enrolment key's ``voucher`` for that member key."""

    member: bytes
    until: int
    voucher: bytes
    proof: bytes


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """The public half, 32 bytes a key; ``certificate`` is null without a kit."""

    mask: bytes
    agree: bytes
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class RunKeys:
    """The private half, which never leaves the edge."""

    mask: X25519PrivateKey = field(repr=False)
    agree: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, random: Callable[[int], bytes]) -> Self:
        """New keys; ``random`` returns so many bytes from a cryptographic source."""
        return cls.from_private(random(_KEY), random(_KEY))

    @classmethod
    def from_private(cls, mask: bytes, agree: bytes) -> Self:
        """The keys with these raw private halves, 32 bytes each. Raises ``ValueError`` for another length."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        return cls(X25519PrivateKey.from_private_bytes(mask), Ed25519PrivateKey.from_private_bytes(agree))

    def private_bytes(self) -> tuple[bytes, bytes]:
        """What `from_private` takes."""
        return self.mask.private_bytes_raw(), self.agree.private_bytes_raw()

    @property
    def public(self) -> PublicKeys:
        """The public half."""
        return PublicKeys(
            self.mask.public_key().public_bytes_raw(), self.agree.public_key().public_bytes_raw(), None
        )

    def announce(self, run: str, client: str, credential: MemberCredential | None) -> str:
        """The string ``keys`` of a registration; without a credential, keys that nobody has certified."""
        own = self.public
        data = own.mask + own.agree
        if credential is not None:
            key = Signer(credential.private)
            member = key.public
            terms = member + credential.until.to_bytes(_UNTIL, "big") + credential.voucher
            data += terms + key.sign_bytes(_proof_bytes(run, client, own.mask, own.agree))
        return encoded(data)


def parse_keys(text: str) -> PublicKeys:
    """The keys in the string of a registration. Raises ``ValueError`` that says what was expected."""
    try:
        data = decoded(text)
    except ValueError:
        data = b""
    if len(data) not in (_PLAIN, _CERTIFIED) or encoded(data) != text:
        raise ValueError(
            f"keys: {len(text)} characters, expected 86 or 310 of canonical base64url without padding"
        )
    mask, agree = data[:_KEY], data[_KEY:_PLAIN]
    if not _is_point(mask):
        raise ValueError("keys: the first 32 bytes are no canonical X25519 key of large order")
    if len(data) == _PLAIN:
        return PublicKeys(mask, agree, None)
    member, rest = data[_PLAIN : _PLAIN + _KEY], data[_PLAIN + _KEY :]
    until, voucher, proof = rest[:_UNTIL], rest[_UNTIL:-_SIGNATURE], rest[-_SIGNATURE:]
    return PublicKeys(mask, agree, Certificate(member, int.from_bytes(until, "big"), voucher, proof))


def check_keys(keys: PublicKeys, run: str, client: str, enrolment: bytes | None, now: float) -> None:
    """Raises `BadRunKeys` unless ``enrolment`` has certified the keys for ``client`` in ``run``.

    ``enrolment``: the raw Ed25519 key of the enrolment; null without kits, where any keys will do. ``now``: seconds
    since 1970.
    """
    if enrolment is None:
        return
    certificate = keys.certificate
    if certificate is None:
        raise BadRunKeys("keys: not certified, expected a certificate from a kit")
    signed = member_bytes(client, certificate.member, certificate.until)
    if not is_signature(enrolment, certificate.voucher, signed):
        raise BadRunKeys(f"keys: the enrolment key has not certified this member key for {client}")
    if not is_signature(
        certificate.member, certificate.proof, _proof_bytes(run, client, keys.mask, keys.agree)
    ):
        raise BadRunKeys(f"keys: the member key of {client} has not signed these keys for run {run}")
    if now > certificate.until:
        raise BadRunKeys(f"keys: the certificate of {client} has expired, expected that of a newer kit")


def _proof_bytes(run: str, client: str, mask: bytes, agree: bytes) -> bytes:
    return b"".join((_PROOF, run.encode(), b"\0", client.encode(), b"\0", mask, agree))


def is_signature(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` is that of ``data`` by the raw Ed25519 key ``public``, which may be malformed."""
    try:
        return Verifier(public).is_signature_valid(data, signature)
    except ValueError:
        return False


def _is_point(mask: bytes) -> bool:
    """Whether ``mask`` is the one form of an X25519 key whose products are not all zero (RFC 7748, section 6.1)."""
    if int.from_bytes(mask, "little") >= _PRIME:
        return False
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    try:
        _any_scalar().exchange(X25519PublicKey.from_public_bytes(mask))
    except ValueError:
        return False
    return True


@cache
def _any_scalar() -> X25519PrivateKey:
    """It is no secret: it only multiplies points to see whether they have a small order."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(bytes(range(_KEY)))
