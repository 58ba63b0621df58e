"""Updates (whole, or offered and sent in chunks), training that failed, and the answers to updates."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from fl_shared.protocol.kinds.base import (
    MAX_CHUNK,
    ClientId,
    Count,
    Digest,
    Fragment,
    Incarnation,
    Metrics,
    Number,
    ProtocolVersion,
    Reply,
    RunId,
    Scoped,
    Seconds,
    SectionName,
    Text,
    Token,
)
from fl_shared.tensors.encodings.integers import SUM
from fl_shared.tensors.encodings.registry import SectionEncoding
from fl_shared.tensors.manifest import MAX_ARRAYS, ArraySpec

RejectionReason = Literal[
    "stale-round", "stale", "not-selected", "surplus", "late", "duplicate", "wrong-base", "wrong-manifest",
    "wrong-encoding", "wrong-size", "wrong-digest", "not-finite", "too-large", "bad-examples", "wrong-sum", "malformed",
    "no-round", "masked", "not-masked", "wrong-plan", "bad-commitments",
]  # fmt: skip


class Section(Fragment):
    """A section of an update. ``arrays`` is given only in round 0, when the receiver cannot know it."""

    name: SectionName
    encoding: SectionEncoding
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


MAX_SUMMED: Final = 100_000
"""The most edges whose updates are in one sum."""


class SumOf(Fragment):
    """The updates that a regional aggregator has added up, in ascending order of their edges: all but their values.

    ``losses``: of the base on an edge's holdout; ``norms``: of an update after all transforms; null where not known.
    """

    clients: Annotated[tuple[ClientId, ...], Field(min_length=1, max_length=MAX_SUMMED, fail_fast=True)]
    examples: Annotated[tuple[Count, ...], Field(max_length=MAX_SUMMED, fail_fast=True)]
    steps: Annotated[tuple[Count, ...], Field(max_length=MAX_SUMMED, fail_fast=True)]
    losses: Annotated[tuple[Number | None, ...], Field(max_length=MAX_SUMMED, fail_fast=True)]
    norms: Annotated[tuple[Number | None, ...], Field(max_length=MAX_SUMMED, fail_fast=True)]

    @model_validator(mode="after")
    def _is_one_list(self) -> Self:
        lengths = {len(getattr(self, name)) for name in type(self).model_fields}
        if len(lengths) > 1:
            raise ValueError(f"sum_of: lists of {sorted(lengths)} entries, expected one entry for each edge")
        if any(a >= b for a, b in itertools.pairwise(self.clients)):
            raise ValueError("sum_of: clients must be unique and in ascending order")
        return self


def check_sum(sections: Sequence[Section | OfferedSection], sum_of: SumOf | None, examples: int) -> None:
    """Raises ``ValueError`` unless a sum, and nothing else, says what it consists of."""
    if any((section.encoding == SUM.name) != (sum_of is not None) for section in sections):
        raise ValueError(f"sum_of: expected with sections in the encoding {SUM.name!r}, and only with these")
    if sum_of is not None and sum(sum_of.examples) != examples:
        raise ValueError(f"examples: {examples}, but those of sum_of are {sum(sum_of.examples)}")


class Update(Scoped):
    """An update, whole, on ``fl/updates/<client>`` (msgpack): local − base weights, or in round 0 the first weights.

    ``sum_of``: it is the sum of a regional aggregator (protocol, 5.21); null otherwise. ``plan``: for which plan it is
    masked (protocol, 10.4); null if it is not.
    """

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
    sum_of: SumOf | None = None
    plan: Digest | None = None
    sections: Annotated[tuple[Section, ...], Field(min_length=1, max_length=16, fail_fast=True)]

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        check_sum(self.sections, self.sum_of, self.examples)
        return self


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
    encoding: SectionEncoding
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
    sum_of: SumOf | None = None
    plan: Digest | None = None
    sections: Annotated[tuple[OfferedSection, ...], Field(min_length=1, max_length=16, fail_fast=True)]
    size: Count
    chunk_size: Annotated[int, Field(ge=1, le=MAX_CHUNK)]
    chunks: Annotated[int, Field(ge=1, le=1_000_000)]

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        check_sum(self.sections, self.sum_of, self.examples)
        return self


class UpdateChunk(Scoped):
    """One granted chunk of the update that was offered with this digest, on ``fl/updates/<client>`` (msgpack)."""

    kind: Literal["update-chunk"] = "update-chunk"
    client: ClientId
    session: Token
    round: Count
    digest: Digest
    index: Count
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
