"""Births and wills, registrations and their answers, and the operator's order: what makes up a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from fl_shared.protocol.kinds.base import (
    ClientId,
    ClientRole,
    Count,
    Digest,
    EncodingName,
    Fragment,
    Message,
    PresenceState,
    Reply,
    RunId,
    TaskName,
    Text,
    Token,
)

RefusalReason = Literal[
    "id-in-use", "wrong-version", "wrong-task", "wrong-manifest", "wrong-encoding", "no-part-left"
]
LimitReason = Literal["too-many-messages", "too-many-bytes", "too-many-registrations", "too-many-presences"]


class AggregatorPresence(Message):
    """``fl/aggregator``, retained: the aggregator's birth and its will."""

    kind: Literal["aggregator"] = "aggregator"
    state: PresenceState
    session: Token
    run: RunId
    epoch: Annotated[int, Field(ge=1, le=2**53)]


class ClientPresence(Message):
    """``fl/clients/<client>/presence``, retained: an edge's birth and its will."""

    kind: Literal["presence"] = "presence"
    client: ClientId
    state: PresenceState
    session: Token


class Partition(Fragment):
    """Which part of a data set is an edge's: part ``index`` of ``count``, drawn with ``seed`` by ``scheme``.

    ``scheme``: ``iid``, ``shards``, ``dirichlet:ALPHA``, ``quantity:ALPHA``, or ``own`` (all that the edge has).
    ``holdout``: the fraction of the part that is kept for evaluation. ``examples``: use only so many of the data
    set (before it is parted), all if null.
    """

    index: Count
    count: Annotated[int, Field(ge=1, le=1_000_000)]
    scheme: Annotated[str, StringConstraints(max_length=64)]
    seed: Count
    holdout: Annotated[float, Field(ge=0, lt=1)]
    examples: Annotated[int, Field(ge=1, le=2**53)] | None = None


class Registration(Message):
    """``fl/register/<client>``. The first one names no run; the second says what the edge has found out."""

    kind: Literal["register"] = "register"
    run: RunId | None = None
    epoch: Annotated[int, Field(ge=1, le=2**53)] | None = None
    seq: Count
    client: ClientId
    session: Token
    device: Token
    roles: Annotated[tuple[ClientRole, ...], Field(min_length=1, max_length=3)]
    task: TaskName | None = None
    manifest: Digest | None = None
    examples: Count | None = None
    encodings: Annotated[tuple[EncodingName, ...], Field(max_length=32)]


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


class Limited(Reply):
    """More came than is taken from one client (protocol, 8.8): some of it was dropped unread. Said once in a while."""

    kind: Literal["limited"] = "limited"
    reason: LimitReason
    detail: Text


class Control(Message):
    """``fl/control``, never retained: whoever may write there ends ``run``. ``reason`` is for people.

    ``epoch``: this start of its aggregator only, and not one that takes the run up again; null: any.
    """

    kind: Literal["stop"] = "stop"
    run: RunId
    epoch: Annotated[int, Field(ge=1, le=2**53)] | None = None
    reason: Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")] = ""
