"""Answers to one session of one client, on ``fl/replies/<client>``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fl_shared.protocol.kinds.base import ClientId, Count, Digest, Scoped, TaskName, Text, Token
from fl_shared.protocol.kinds.run import Partition

RefusalReason = Literal[
    "id-in-use", "wrong-version", "wrong-task", "wrong-manifest", "wrong-encoding", "no-part-left"
]
RejectionReason = Literal[
    "stale-round", "not-selected", "surplus", "late", "duplicate", "wrong-base", "wrong-manifest",
    "wrong-encoding", "wrong-size", "wrong-digest", "not-finite", "too-large", "bad-examples", "malformed", "no-round",
]  # fmt: skip
LimitReason = Literal["too-many-messages", "too-many-bytes", "too-many-registrations", "too-many-presences"]


class Reply(Scoped):
    """``fl/replies/<client>``: to one session of one client; other sessions ignore it."""

    client: ClientId
    session: Token


class Admitted(Reply):
    """``partition`` is null for who does not train, and while the parts are not yet given out.

    ``examples``: those of the registration that is answered (null: the first one). ``held``: the open round of
    which the aggregator already holds this client's update.
    """

    kind: Literal["admitted"] = "admitted"
    task: TaskName
    partition: Partition | None
    examples: Count | None = None
    held: Count | None = None


class Refused(Reply):
    kind: Literal["refused"] = "refused"
    reason: RefusalReason
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


class Limited(Reply):
    """More came than is taken from one client (protocol, 8.8): some of it was dropped unread. Said once in a while."""

    kind: Literal["limited"] = "limited"
    reason: LimitReason
    detail: Text
