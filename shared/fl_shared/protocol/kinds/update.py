"""Updates (whole, or offered and sent in chunks), training that failed, and the answers to updates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fl_shared.protocol.kinds.base import (
    MAX_CHUNK,
    ClientId,
    Count,
    Digest,
    Fragment,
    Incarnation,
    Metrics,
    ProtocolVersion,
    Reply,
    RunId,
    Scoped,
    Seconds,
    SectionName,
    Text,
    Token,
)
from fl_shared.tensors.encodings.registry import KnownEncoding
from fl_shared.tensors.manifest import MAX_ARRAYS, ArraySpec

RejectionReason = Literal[
    "stale-round", "stale", "not-selected", "surplus", "late", "duplicate", "wrong-base", "wrong-manifest",
    "wrong-encoding", "wrong-size", "wrong-digest", "not-finite", "too-large", "bad-examples", "malformed", "no-round",
]  # fmt: skip


class Section(Fragment):
    """A section of an update. ``arrays`` is given only in round 0, when the receiver cannot know it."""

    name: SectionName
    encoding: KnownEncoding
    manifest: Digest
    arrays: (
        Annotated[tuple[ArraySpec, ...], Field(min_length=1, max_length=MAX_ARRAYS, fail_fast=True)] | None
    ) = None
    data: bytes


class UpdateMetrics(Fragment):
    """Metrics of the base model (``before``) and the trained one (``after``) on the holdout; ``train``: in training."""

    before: Metrics | None = None
    after: Metrics | None = None
    train: Metrics | None = None


class Update(Scoped):
    """An update, whole, on ``fl/updates/<client>`` (msgpack): local − base weights, or in round 0 the first weights."""

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
    """The members of an update or an offer that suffice to reject it when the rest cannot be read."""

    v: ProtocolVersion
    kind: Literal["update", "offer"]
    run: RunId
    incarnation: Incarnation
    client: ClientId
    session: Token
    round: Count
    digest: Digest


class OfferedSection(Fragment):
    """A section of an offer: everything but its data, which has ``size`` bytes."""

    name: SectionName
    encoding: KnownEncoding
    manifest: Digest
    arrays: (
        Annotated[tuple[ArraySpec, ...], Field(min_length=1, max_length=MAX_ARRAYS, fail_fast=True)] | None
    ) = None
    size: Count


class Offer(Scoped):
    """The offer of an update, on ``fl/updates/<client>`` (msgpack): everything but its data.

    The data of all sections, ``size`` bytes in all, is cut every ``chunk_size`` bytes into ``chunks`` chunks, which
    the aggregator requests (`Grant`).
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
    """One granted chunk of the update that was offered with this digest, on ``fl/updates/<client>`` (msgpack)."""

    kind: Literal["update-chunk"] = "update-chunk"
    client: ClientId
    session: Token
    round: Count
    digest: Digest
    index: Count
    crc32: Annotated[int, Field(ge=0, lt=2**32)]
    data: bytes


class TrainingFailed(Scoped):
    """A selected edge cannot train in this round, and why; on ``fl/updates/<client>`` (msgpack)."""

    kind: Literal["failed"] = "failed"
    client: ClientId
    session: Token
    round: Count
    detail: Text


class Delayed(Scoped):
    """An edge waits for parts of a model, or for the answer to its update, that have not come in time.

    On ``fl/updates/<client>`` (msgpack). It is not answered. ``round`` is that of its work, and null if it has none.
    """

    kind: Literal["delayed"] = "delayed"
    client: ClientId
    session: Token
    round: Count | None
    awaits: Literal["model", "answer"]


class Accepted(Reply):
    """The aggregator has accepted the update with this digest. The edge may delete it."""

    kind: Literal["accepted"] = "accepted"
    round: Count
    digest: Digest


class Grant(Reply):
    """The edge may send these chunks of the offered update now, once each."""

    kind: Literal["grant"] = "grant"
    round: Count
    digest: Digest
    chunks: Annotated[tuple[Count, ...], Field(min_length=1, max_length=1024, fail_fast=True)]


class Rejected(Reply):
    """The aggregator does not use an update, and why. ``digest`` is null if the message had none."""

    kind: Literal["rejected"] = "rejected"
    round: Count
    digest: Digest | None
    reason: RejectionReason
    detail: Text
