"""Updates, whole or offered and sent in chunks, training that failed, and what is answered to an update."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fl_shared.protocol.kinds.base import (
    MAX_CHUNK,
    ClientId,
    Count,
    Digest,
    Fragment,
    Metrics,
    Reply,
    RunId,
    Scoped,
    Seconds,
    Text,
    Token,
)
from fl_shared.tensors.encodings.registry import KnownEncoding
from fl_shared.tensors.manifest import MAX_ARRAYS, ArraySpec

RejectionReason = Literal[
    "stale-round", "not-selected", "surplus", "late", "duplicate", "wrong-base", "wrong-manifest",
    "wrong-encoding", "wrong-size", "wrong-digest", "not-finite", "too-large", "bad-examples", "malformed", "no-round",
]  # fmt: skip


class Section(Fragment):
    """A section of an update. ``arrays`` only where the receiver cannot know them (round 0)."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    encoding: KnownEncoding
    manifest: Digest
    arrays: (
        Annotated[tuple[ArraySpec, ...], Field(min_length=1, max_length=MAX_ARRAYS, fail_fast=True)] | None
    ) = None
    data: bytes


class UpdateMetrics(Fragment):
    """On the edge's holdout: the base model (``before``) and the trained one (``after``); ``train``: its loss."""

    before: Metrics | None = None
    after: Metrics | None = None
    train: Metrics | None = None


class Update(Scoped):
    """``fl/updates/<client>``, msgpack: what an edge learnt, local − base (whole weights in round 0)."""

    kind: Literal["update"] = "update"
    client: ClientId
    session: Token
    round: Count
    base: Digest | None
    digest: Digest
    examples: Count
    steps: Count
    seconds: Seconds
    metrics: UpdateMetrics
    sections: Annotated[tuple[Section, ...], Field(min_length=1, max_length=16, fail_fast=True)]


class UpdateClaim(Fragment):
    """What an update, or an offer of one, says of itself: enough to answer it where the rest cannot be read."""

    v: Literal[1]
    kind: Literal["update", "offer"]
    run: RunId
    epoch: Annotated[int, Field(ge=1, le=2**53)]
    client: ClientId
    session: Token
    round: Count
    digest: Digest


class OfferedSection(Fragment):
    """A section of an offer: all but its data, of which there are ``size`` bytes."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    encoding: KnownEncoding
    manifest: Digest
    arrays: (
        Annotated[tuple[ArraySpec, ...], Field(min_length=1, max_length=MAX_ARRAYS, fail_fast=True)] | None
    ) = None
    size: Count


class Offer(Scoped):
    """``fl/updates/<client>``, msgpack: an update that is to be asked for, all but its data.

    The data of all sections together, ``size`` bytes, is cut every ``chunk_size`` bytes into ``chunks`` chunks.
    """

    kind: Literal["offer"] = "offer"
    client: ClientId
    session: Token
    round: Count
    base: Digest | None
    digest: Digest
    examples: Count
    steps: Count
    seconds: Seconds
    metrics: UpdateMetrics
    sections: Annotated[tuple[OfferedSection, ...], Field(min_length=1, max_length=16, fail_fast=True)]
    size: Count
    chunk_size: Annotated[int, Field(ge=1, le=MAX_CHUNK)]
    chunks: Annotated[int, Field(ge=1, le=1_000_000)]


class UpdateChunk(Scoped):
    """``fl/updates/<client>``, msgpack: one chunk of the update that was offered with this digest, as granted."""

    kind: Literal["part"] = "part"
    client: ClientId
    session: Token
    round: Count
    digest: Digest
    index: Count
    crc32: Annotated[int, Field(ge=0, lt=2**32)]
    data: bytes


class TrainingFailed(Scoped):
    """``fl/updates/<client>``, msgpack: a selected edge cannot train in this round, and why."""

    kind: Literal["failed"] = "failed"
    client: ClientId
    session: Token
    round: Count
    detail: Text


class Accepted(Reply):
    """The update with this digest is kept: the edge may forget it."""

    kind: Literal["accepted"] = "accepted"
    round: Count
    digest: Digest


class Grant(Reply):
    """These chunks of the offered update may be sent now, once each."""

    kind: Literal["grant"] = "grant"
    round: Count
    digest: Digest
    chunks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=1024, fail_fast=True)]


class Rejected(Reply):
    kind: Literal["rejected"] = "rejected"
    round: Count
    digest: Digest | None
    reason: RejectionReason
    detail: Text
