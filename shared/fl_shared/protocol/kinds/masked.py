"""Rounds whose updates are masked: keys of their members, the set that is summed, and the shares that unmask the sum.

Binary values in JSON are base64url without padding (RFC 4648, section 5).
"""

from __future__ import annotations

import itertools
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fl_shared.protocol.kinds.base import ClientId, Count, Digest, Fragment, Scoped, Seconds, Text, Token
from fl_shared.tensors.encodings.masked import Bits

MAX_MEMBERS: Final = 128
"""Edges of the largest cohort whose updates are masked: the shares of all are quadratic in their number."""
SEED: Final = 16
"""Bytes of the seed of a mask, and of one share of it."""
SIGNATURE: Final = 64
"""Bytes of a signature (Ed25519)."""

RunKeysText = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9_-]{86}|[A-Za-z0-9_-]{310})$")]
"""An edge's public keys for a run: X25519 and Ed25519, 64 bytes; with kits also their certificate, 232 bytes in all."""
SignatureText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86}$")]
PackageText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{64,4096}$")]
"""The salt of an update's shares, and the encrypted shares for one edge."""
Members = Annotated[int, Field(ge=1, le=MAX_MEMBERS)]
Included = Annotated[dict[ClientId, Digest], Field(min_length=1, max_length=MAX_MEMBERS)]
"""The edges whose updates are summed, and the digest of each one's masked sections and shares."""


class Member(Fragment):
    """A member of a cohort whose updates are masked, and its keys for the run."""

    client: ClientId
    keys: RunKeysText


class Masking(Fragment):
    """How the updates of a round are masked, and for whom (protocol, section 10).

    ``threshold``: the shares that unmask the sum. ``least``: the fewest updates in it. ``colluders``: the members who
    may work with the aggregator without learning more than the sum. ``members``: in ascending order of their names.
    """

    protocol: Literal["pairwise-1"] = "pairwise-1"
    bits: Bits
    threshold: Members
    least: Members
    colluders: Annotated[int, Field(ge=0, le=MAX_MEMBERS)]
    members: Annotated[tuple[Member, ...], Field(min_length=2, max_length=MAX_MEMBERS, fail_fast=True)]

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        names = [member.client for member in self.members]
        if any(first >= second for first, second in itertools.pairwise(names)):
            raise ValueError("members: names must be unique and in ascending order")
        return self


class Closing(Scoped):
    """The set of updates that a round sums, for its members to sign, retained on ``fl/clients/<client>/unmask``."""

    kind: Literal["closing"] = "closing"
    round: Count
    plan: Digest
    included: Included
    seconds_left: Seconds


class Reveal(Scoped):
    """The set that enough members have signed, with their signatures, retained on ``fl/clients/<client>/unmask``.

    ``packages``: of each update in the set, the salt and the encrypted shares for this edge.
    """

    kind: Literal["reveal"] = "reveal"
    round: Count
    plan: Digest
    included: Included
    signatures: Annotated[dict[ClientId, SignatureText], Field(max_length=MAX_MEMBERS)]
    packages: Annotated[dict[ClientId, PackageText], Field(max_length=MAX_MEMBERS)]
    seconds_left: Seconds


class Agreed(Scoped):
    """A member's signature of the set that is summed, on ``fl/updates/<client>`` (msgpack)."""

    kind: Literal["agreed"] = "agreed"
    client: ClientId
    session: Token
    round: Count
    closing: Digest
    signature: Annotated[bytes, Field(min_length=SIGNATURE, max_length=SIGNATURE)]


class Opened(Scoped):
    """A member's shares of the seeds that unmask the sum, on ``fl/updates/<client>`` (msgpack).

    ``shares``: for each update in the set, by name, the share of its own seed and then those of its seeds with each
    member who is not in the set, by name; 16 bytes each. ``unopened``: whose package could not be opened; zeros stand
    in its place. ``digest``: SHA-256 of the shares.
    """

    kind: Literal["opened"] = "opened"
    client: ClientId
    session: Token
    round: Count
    closing: Digest
    digest: Digest
    shares: Annotated[bytes, Field(min_length=SEED, max_length=MAX_MEMBERS * MAX_MEMBERS * SEED)]
    unopened: Annotated[tuple[ClientId, ...], Field(max_length=MAX_MEMBERS, fail_fast=True)] = ()


DeclineReason = Literal[
    "another-set", "too-small", "not-a-member", "wrong-plan", "wrong-signatures", "no-keys", "policy"
]


class Declined(Scoped):
    """A member does not sign or open a set, and why; on ``fl/updates/<client>`` (msgpack)."""

    kind: Literal["declined"] = "declined"
    client: ClientId
    session: Token
    round: Count
    closing: Digest
    reason: DeclineReason
    detail: Text
