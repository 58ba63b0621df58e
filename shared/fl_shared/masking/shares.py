"""The seeds of a member, and its section ``shares``, which lets the others open them.

For n members the section has::

    salt (16)  commitments (32 each)  packages (16 n + 16 each)

both in the order of the members. A package is what one member, its holder, may open: its shares of all n seeds,
sealed with AES-256-GCM. The seed in the member's own place is that of its own mask.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from fl_shared.masking.plan import Member, Plan
from fl_shared.masking.tallies import TALLIES_MANIFEST, TALLY_BITS
from fl_shared.protocol.kinds.masked import SEED
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.encodings.interface import Buffer
from fl_shared.tensors.encodings.masked import MASKED
from fl_shared.tensors.manifest import ArraySpec, Manifest
from fl_shared.tensors.sections import SHARES, TALLIES

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

SALT: Final = 16
_TAG: Final = 16
_DIGEST: Final = 32
_NONCE: Final = bytes(12)
"""Each key seals one package: its salt is fresh."""
_PAIR: Final = b"fl-mqtt pair 1\0"
_SEED: Final = b"fl-mqtt seed 1\0"
_BODY: Final = b"fl-mqtt masked 1\0"


def package_size(members: int) -> int:
    """The bytes of a package."""
    return SEED * members + _TAG


def shares_size(members: int) -> int:
    """The bytes of the section."""
    return SALT + members * (_DIGEST + package_size(members))


def shares_manifest(size: int) -> Manifest:
    """The manifest of the section, whose values are its ``size`` bytes."""
    return Manifest(arrays=(ArraySpec(name=SHARES, shape=(size,)),))


def pair_secret(plan_digest: bytes, client: str, private: X25519PrivateKey, other: Member) -> bytes:
    """What ``client``, whose private key this is, and ``other`` have in common, 32 bytes.

    Their names are in it: other public keys than that of ``other`` have the same product (RFC 7748, section 7), so a
    member could else have the secrets of two others for its own, and have them opened by getting lost.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    product = private.exchange(X25519PublicKey.from_public_bytes(other.mask))
    return hmac.digest(plan_digest, _PAIR + _names(client, other.client) + product, "sha256")


def mask_seed(pair: bytes) -> bytes:
    """The seed of the mask that two members have in common, 16 bytes."""
    return _expanded(pair, b"mask")[:SEED]


def share_key(pair: bytes, salt: bytes, sender: str, holder: str) -> bytes:
    """The key of the package of ``sender`` for ``holder``, 32 bytes."""
    return _expanded(pair, b"share\0" + salt + f"{sender}\0{holder}".encode())


def _expanded(key: bytes, info: bytes) -> bytes:
    return hmac.digest(key, info + b"\x01", "sha256")  # HKDF-Expand (RFC 5869, 2.3), its first block


def commitment(plan_digest: bytes, client: str, other: str, seed: bytes) -> bytes:
    """The commitment to a seed, 32 bytes; both members of a pair make the same."""
    return hashlib.sha256(_SEED + plan_digest + _names(client, other) + seed).digest()


def _names(client: str, other: str) -> bytes:
    first, second = sorted((client, other))
    return f"{first}\0{second}\0".encode()


def body_of(plan_digest: bytes, salt: bytes, commitments: bytes, delta: str, tallies: Buffer) -> bytes:
    """The digest of a masked update, 32 bytes. ``delta``: the digest of this section alone (protocol, 3.4), hex.

    So one pass over the data of an update gives its digest and its body.
    """
    counted = content_digest(
        [(TALLIES, MASKED[TALLY_BITS].name, TALLIES_MANIFEST.digest, memoryview(tallies))]
    )
    content = (_BODY, plan_digest, salt, commitments, bytes.fromhex(delta), bytes.fromhex(counted))
    return hashlib.sha256(b"".join(content)).digest()


def seal_package(key: bytes, plan_digest: bytes, body: bytes, shares: bytes) -> bytes:
    """The package of ``shares``, bound to the plan and to the update of this body."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key).encrypt(_NONCE, shares, plan_digest + body)


def open_package(key: bytes, plan_digest: bytes, body: bytes, package: bytes) -> bytes | None:
    """The shares in a package; null if it was not sealed so."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(_NONCE, package, plan_digest + body)
    except (InvalidTag, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class SharesSection:
    """A section ``shares``, taken apart; ``members``: how many."""

    members: int
    data: bytes | memoryview = field(repr=False)

    @classmethod
    def of(cls, plan: Plan, data: bytes | memoryview) -> Self:
        """Raises ``ValueError`` for a wrong length."""
        if len(data) != (size := shares_size(len(plan.members))):
            raise ValueError(f"shares: {len(data)} bytes, expected {size}")
        return cls(len(plan.members), data)

    @property
    def salt(self) -> bytes:
        """The salt of the keys of the packages."""
        return bytes(self.data[:SALT])

    @property
    def commitments(self) -> bytes:
        """The commitments to all seeds, one after the other."""
        return bytes(self.data[SALT : SALT + _DIGEST * self.members])

    def commitment(self, index: int) -> bytes:
        """The commitment to the seed with the member at ``index``."""
        start = SALT + _DIGEST * index
        return bytes(self.data[start : start + _DIGEST])

    def package(self, index: int) -> bytes:
        """What the holder at ``index`` needs: the salt and its package."""
        size = package_size(self.members)
        start = SALT + _DIGEST * self.members + size * index
        return self.salt + bytes(self.data[start : start + size])
