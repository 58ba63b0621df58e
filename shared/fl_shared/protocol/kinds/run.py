"""Births and wills, registrations and their answers."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StringConstraints

from fl_shared.protocol.kinds.base import (
    AbilityName,
    ClientId,
    ClientRole,
    Count,
    Digest,
    EncodingName,
    Fragment,
    Incarnation,
    Message,
    PresenceState,
    Reply,
    RunId,
    TaskName,
    TaskSpec,
    Text,
    Token,
)
from fl_shared.protocol.kinds.environment import Environment
from fl_shared.protocol.kinds.masked import RunKeysText
from fl_shared.protocol.kinds.metric import DeclaredMetrics
from fl_shared.protocol.kinds.round import CountedUpdate, FoldSettings
from fl_shared.system.text import one_line
from fl_shared.tensors.manifest import Manifest

RefusalReason = Literal[
    "id-in-use", "wrong-version", "wrong-task", "wrong-manifest", "wrong-role", "kit-expired", "kit-revoked",
    "lacks-ability", "no-partition-left", "unable", "no-run-keys", "bad-run-keys",
]  # fmt: skip
LimitReason = Literal[
    "too-many-messages", "too-many-bytes", "too-many-registrations", "too-many-presences", "too-much-work"
]  # fmt: skip


Specification = Annotated[
    str, StringConstraints(max_length=1000, pattern=r"^[a-z][a-z0-9-]*(:[a-z0-9_=.,+-]+)?$")
]
"""A part of a strategy, by its name, and the values of its fields: no code that is named by a stranger."""
MAX_UNABLE: Final = 200
"""Characters that say why an edge does not take part in a run."""
MAX_LOCAL_PART: Final = 200
"""Characters that name the arrays of an edge's model that are not shared."""
MAX_LEAVING: Final = 120
"""Characters that say why an edge leaves."""
MAX_WEIGHTS_JSON: Final = 2**15
"""Characters of the arrays that a refusal may list."""


class AggregatorPresence(Message):
    """The aggregator's birth and its will, retained on ``fl/aggregator``.

    ``started``: when this incarnation began, in milliseconds since 1970; 0 if that is not known. It stays the same when
    the aggregator connects again. ``sealed``: whether it takes only sealed messages (protocol, 9.13).
    """

    kind: Literal["aggregator"] = "aggregator"
    state: PresenceState
    session: Token
    run: RunId
    incarnation: Incarnation
    started: Count = 0
    sealed: bool = False

    def outranks(self, other: AggregatorPresence) -> bool:
        """Whether this aggregator goes on, and ``other`` ends, if both are online under one prefix (protocol, 8.12)."""
        if self.run == other.run and self.incarnation != other.incarnation:
            return self.incarnation > other.incarnation
        return (self.started, self.session) > (other.started, other.session)


class ClientPresence(Message):
    """An edge's birth and its will, retained on ``fl/clients/<client>/presence``.

    ``reason``: why an edge leaves in order, for people; null in a birth and in a will.
    """

    kind: Literal["presence"] = "presence"
    client: ClientId
    state: PresenceState
    session: Token
    reason: Annotated[str, StringConstraints(max_length=MAX_LEAVING), AfterValidator(one_line)] | None = None


class SessionClaim(Fragment):
    """What a presence, a registration or a reply says of itself in any version of the protocol.

    ``session`` is that of its sender, or of whom a reply is meant for. ``state`` is that of a presence, null in others;
    ``run`` and ``incarnation`` are those of an aggregator.
    """

    v: Count
    session: Token
    state: PresenceState | None = None
    run: RunId | None = None
    incarnation: Incarnation | None = None


class Partition(Fragment):
    """The partition of a data set that an edge trains on: number ``index`` of ``count``.

    ``scheme`` divides the data set, with ``seed``: ``iid``, ``shards``, ``pathological:K`` (classes),
    ``dirichlet:ALPHA``, ``quantity:ALPHA``, ``natural`` (the data's own division: its k-th file, site or speaker), or
    ``own`` (all that the edge has). ``holdout``: the fraction of the partition that is kept for evaluation.
    ``examples``: how many examples of the data set are divided; all if null.
    """

    index: Count
    count: Annotated[int, Field(ge=1, le=1_000_000)]
    scheme: Annotated[str, StringConstraints(max_length=64)]
    seed: Count
    holdout: Annotated[float, Field(ge=0, lt=1)]
    examples: Incarnation | None = None


class RegionalSums(Fragment):
    """How a regional aggregator adds up the updates of its edges, so that its sum fits into the run's (protocol, 5.21).

    ``combine`` and ``transforms``: specifications of parts of the strategy. ``norms``: whether it must say how long
    each update is. ``fold``: caps of each edge's update. ``slots``: the most edges whose updates
    are in a round's sum. ``encoding``: of their updates; ``model_encoding``: of the models.
    """

    combine: Specification
    transforms: Annotated[tuple[Specification, ...], Field(max_length=16, fail_fast=True)]
    norms: bool
    fold: FoldSettings
    slots: Annotated[int, Field(ge=1, le=1_000_000)]
    encoding: EncodingName
    model_encoding: EncodingName


class Registration(Message):
    """An edge's registration, on ``fl/register/<client>``.

    The first one names no run. The second one, after the edge has loaded its partition, adds the run, the manifest
    of its weights, the number of its examples, and the metrics that its task declares. ``unable``: why it does not
    take part in that run instead. ``abilities``: what the edge can do in training besides plain SGD; in the second one,
    what it can do in its task. ``fresh``: in the second one, that the edge has kept nothing of this run for a
    correction. ``edges``: it is a regional aggregator, which stands for so many edges; null for an edge.
    ``via``: the name of the broker that it is connected to, if that is bridged to the aggregator's. ``environment``:
    where it runs (protocol, 4.13). ``keys``: in the second one, its keys for a run whose updates are masked.
    ``local_part``: in the second one, the arrays of its model that stay on the edge, as a text; null if none does.
    """

    kind: Literal["register"] = "register"
    run: RunId | None = None
    incarnation: Incarnation | None = None
    seq: Count
    client: ClientId
    session: Token
    device: Token
    roles: Annotated[tuple[ClientRole, ...], Field(min_length=1, max_length=3, fail_fast=True)]
    task: TaskName | None = None
    manifest: Digest | None = None
    examples: Count | None = None
    metrics: DeclaredMetrics | None = None
    encodings: Annotated[tuple[EncodingName, ...], Field(max_length=32, fail_fast=True)]
    abilities: Annotated[tuple[AbilityName, ...], Field(max_length=32, fail_fast=True)] = ()
    fresh: bool = False
    edges: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    unable: Annotated[str, StringConstraints(max_length=MAX_UNABLE), AfterValidator(one_line)] | None = None
    via: ClientId | None = None
    environment: Environment | None = None
    keys: RunKeysText | None = None
    local_part: (
        Annotated[str, StringConstraints(max_length=MAX_LOCAL_PART), AfterValidator(one_line)] | None
    ) = None


class Admitted(Reply):
    """The client takes part in the run.

    ``partition`` is null if the client does not train, and as long as partitions are not yet assigned. ``examples``
    repeats the registration that is answered (null: the first one). ``finished_round``: the newest round, if the
    aggregator needs nothing more of this client in it: it has its update, or the round has closed. ``newest_round``:
    the newest round that has been opened (null: none); ``awaited``: whether it is open and waits for an update of
    this client. ``counted``: the newest update of this client that is in a version; known if the run has a
    correction. ``sums``: for a regional aggregator. ``masked``: updates of this run are masked, so the next
    registration has keys. ``private``: the run has differential privacy, so the client says nothing of its data but
    its update.
    """

    kind: Literal["admitted"] = "admitted"
    task: TaskSpec
    partition: Partition | None
    examples: Count | None = None
    finished_round: Count | None = None
    newest_round: Count | None = None
    awaited: bool = False
    counted: CountedUpdate | None = None
    sums: RegionalSums | None = None
    masked: bool = False
    private: bool = False


class Refused(Reply):
    """The client does not take part in the run, and why.

    ``weights``: for ``wrong-manifest``, the arrays of the run's model, unless they need more than 32 KiB.
    """

    kind: Literal["refused"] = "refused"
    reason: RefusalReason
    detail: Text
    weights: Manifest | None = None


class Limited(Reply):
    """Messages of this client were above a limit (protocol, 8.8), and some were dropped unread. Sent now and then."""

    kind: Literal["limited"] = "limited"
    reason: LimitReason
    detail: Text
