"""Events: facts that the machine reacts to, named in the past tense.

Every event carries ``now``, the run time in seconds, which does not pass while the aggregator is down. The
machine never sees weights: an event names them by their digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from fl_aggregator.round.command_events import PauseRequested as PauseRequested
from fl_aggregator.round.command_events import StopRequested as StopRequested
from fl_aggregator.round.command_events import UnpauseRequested as UnpauseRequested
from fl_aggregator.round.masked_events import Agreed as Agreed
from fl_aggregator.round.masked_events import Declined as Declined
from fl_aggregator.round.masked_events import SharesArrived as SharesArrived
from fl_aggregator.round.masked_events import SharesKept as SharesKept
from fl_aggregator.round.masked_events import UnmaskFailed as UnmaskFailed
from fl_shared.masking.tallies import Tallies as Tallies
from fl_shared.protocol.messages import (
    ClientRole,
    Correction,
    Environment,
    MetricDeclaration,
    ModelReference,
    RejectionReason,
    Split,
    TrainingRequest,
)

Payload = Annotated[object, Field(exclude=True)]
"""An update with its bytes, or an offer. The machine passes it on unread, and the journal leaves it out."""


@dataclass(frozen=True, slots=True)
class Part:
    """All of one edge's update in the sum of a regional aggregator, except its values.

    ``loss``: of the base on its holdout. ``norm``: after all transforms. Null where not known.
    """

    client: str
    examples: int
    steps: int
    loss: float | None = None
    norm: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMetadata:
    """All of an update except its values.

    ``base`` and ``digest`` are digests; ``base`` is null for initial weights. ``size`` is in bytes,
    ``seconds`` is how long training took. ``before``, ``after`` and ``train`` are metrics: of the base and of
    the trained model on the edge's holdout, and of the training itself. ``staleness``: how many versions had been made
    since its base, set when it is accepted; always 0 in a run of rounds. ``parts``: of what it is the sum; empty if it
    is the update of one edge. ``response_seconds``: from the selection of its edge to its acceptance, set then; always
    0 in an asynchronous run. ``section_examples``: those of the first update of its edge that is in a version, by which
    what it contains besides the delta is weighed; set when it is accepted, null if this may be the first. ``plan``: the
    digest of the plan for which it is masked, null if it is not; ``body``: that of its masked sections and its shares,
    set when it is stored.
    """

    client: str
    session: str
    round: int
    base: str | None
    digest: str
    manifest: str
    examples: int
    steps: int
    size: int
    seconds: float = 0.0
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    train: dict[str, float] = field(default_factory=dict)
    staleness: int = 0
    parts: tuple[Part, ...] = ()
    response_seconds: float = 0.0
    section_examples: int | None = None
    plan: str | None = None
    body: str | None = None

    @property
    def counted_examples(self) -> int:
        """By how many examples what it contains besides the delta is weighed."""
        return self.examples if self.section_examples is None else self.section_examples

    @property
    def edges(self) -> int:
        """Of how many edges it is the update."""
        return max(1, len(self.parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The run has begun."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The aggregator was started again; edges that were present may be gone.

    ``incarnation`` counts its starts.
    """

    now: float
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatesLost:
    """Accepted updates of the round that was open at a resume are missing from the spool."""

    now: float
    round: int
    clients: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected:
    """Our own connection was lost.

    A broker that is shut down publishes the wills of all clients first.
    """

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnected:
    """Our own connection is back; wills may have been missed in the meantime."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """An edge has registered; its second registration adds ``examples``, ``manifest`` and ``metrics``.

    ``encodings`` are those in which it can send updates, ``abilities`` what it can do in training. ``metrics`` are
    those that its task declares. ``unable``: why it does not take part, null if it does. ``fresh``: whether it has kept
    nothing of this run for a correction. ``edges``: it is a regional aggregator, which stands for so many edges; null
    for an edge. ``via``: the bridged broker that it is connected to, null for ours. ``environment``: where it runs.
    ``keys``: its public keys for a run whose updates are masked. ``local_part``: names the arrays of its model that
    stay on the edge; null if none does, or that is not known. ``device`` is empty for an edge of another version of the
    protocol, of which nothing more is known.
    """

    now: float
    client: str
    session: str
    device: str
    roles: tuple[ClientRole, ...]
    encodings: tuple[str, ...]
    abilities: tuple[str, ...] = ()
    task: str | None = None
    manifest: str | None = None
    examples: int | None = None
    metrics: tuple[MetricDeclaration, ...] | None = None
    unable: str | None = None
    fresh: bool = False
    edges: int | None = None
    via: str | None = None
    environment: Environment | None = None
    keys: str | None = None
    local_part: str | None = None


def registered_in_other_version(now: float, client: str, session: str, error: str) -> Registered:
    """Returns the registration of an edge of another version of the protocol; ``error``: the text of `DecodeError`."""
    unable = f"{error.removeprefix('v: ')}: install the version of fl-mqtt that the aggregator has"
    return Registered(
        now=now, client=client, session=session, device="", roles=("train",), encodings=(), unable=unable
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLost:
    """A session of an edge has ended.

    Its connection was lost, as its will says, or it has gone offline, as its own message says, with the ``reason``.
    """

    now: float
    client: str
    session: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeLost:
    """The bridge of the broker ``broker`` to ours was lost: nothing is heard of the edges behind it."""

    now: float
    broker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KitsRevoked:
    """There is a newer list of revoked kits; ``clients``: those that have registered with one of these."""

    now: float
    number: int
    clients: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOffered:
    """An edge offers an update that is too large to be sent unasked.

    ``payload`` is the offer.
    """

    now: float
    update: UpdateMetadata
    payload: Payload = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateArrived:
    """A complete update has arrived; its values are not checked yet.

    ``payload`` is the update if it came whole, and null if it came in chunks.
    """

    now: float
    update: UpdateMetadata
    payload: Payload = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStored:
    """An update has passed the check of its values, and is in the spool."""

    now: float
    update: UpdateMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateInvalid:
    """An update or offer of an edge cannot be used.

    ``digest`` is null if it could not be read.
    """

    now: float
    client: str
    session: str
    round: int
    digest: str | None
    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFailureReported:
    """A selected edge has reported that it cannot train in this round."""

    now: float
    client: str
    round: int
    detail: str


@dataclass(frozen=True, slots=True)
class Similarity:
    """How alike the updates of a round are. All but ``cosines`` have one entry for each of ``clients``.

    ``cosines``: of all pairs; empty if there are too many. ``to_others``: the cosine with the mean direction of all
    others. ``lengths``: L2 norms, of which the median is 1. ``shares``, ``influences``: see `aggregation.similarity`.
    ``outliers``: who is unlike the others, with the reason. ``median_length``: the median L2 norm, of parameters before
    transforms; null in journals of earlier versions.
    """

    clients: tuple[str, ...]
    cosines: tuple[tuple[float, ...], ...]
    to_others: tuple[float, ...]
    lengths: tuple[float, ...]
    shares: tuple[float, ...]
    influences: tuple[float, ...]
    outliers: Mapping[str, str]
    median_length: float | None = None


@dataclass(frozen=True, slots=True)
class StrategyReport:
    """What a strategy says of a version that it has made.

    ``numbers``: by name, all finite (see `aggregation.combining`). ``chosen``: the edges whose updates are in the
    version, ascending, if the combination chooses among them; else empty.
    """

    numbers: Mapping[str, float]
    chosen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCreated:
    """The updates of a round have been averaged, and the new version is on disk.

    ``strategy_state`` is the digest of what the strategy keeps for the next one, null if that is nothing. ``served`` is
    the digest of the mean of versions that is served, null if that is the new version itself. ``similarity``: of the
    round's updates, null if they were not compared. ``tallies``: of a masked round; ``liars``: its
    members whose shares were wrong. ``clip``: of the next round of a private run, null if it does not change.
    ``accuracy``: the noisy mean of the edges' accuracies of the base, null if they do not say them. ``strategy``: null
    for initial weights, in a private run, and in journals of earlier versions.
    """

    now: float
    round: int
    digest: str
    manifest: str
    strategy_state: str | None = None
    served: str | None = None
    similarity: Similarity | None = None
    tallies: Tallies | None = None
    liars: tuple[str, ...] = ()
    clip: float | None = None
    accuracy: float | None = None
    strategy: StrategyReport | None = None


@dataclass(frozen=True, slots=True)
class ConfusionCounts:
    """A confusion matrix: how many examples of each class a model assigned to which class.

    ``counts[i][j]``: examples of the class ``labels[i]`` that the model assigned to ``labels[j]``.
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """An edge has evaluated a version on its split.

    ``examples`` is 0 if the edge could not evaluate it, or has no examples for that. ``metrics``: the values of those
    that its task declares. ``before``: the metrics and the loss before training, of the split ``personal``.
    """

    now: float
    client: str
    session: str
    version: int
    digest: str
    split: Split
    examples: int
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    confusion: ConfusionCounts | None = None
    before: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundOrdered:
    """Of a region: the run above asks for a round, or asks again for it, with less time.

    ``base``: a version that is on disk; null for initial weights. ``seconds``: within which the sum must be made.
    """

    now: float
    round: int
    base: ModelReference | None
    seconds: float
    training: TrainingRequest
    correction: Correction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEnded:
    """Of a region: the run above no longer waits for a round, or has made its version without this region."""

    now: float
    round: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionReceived:
    """Of a region: the run above has made a version without it, which is on disk now."""

    now: float
    model: ModelReference
    manifest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The secret cohort of a round has been drawn, and nobody has been told of it; it may be empty."""

    now: float
    round: int
    cohort: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """Time has passed, so that deadlines and pauses may have ended."""

    now: float


Event = (
    Started
    | Resumed
    | UpdatesLost
    | Disconnected
    | Reconnected
    | Registered
    | EdgeLost
    | BridgeLost
    | KitsRevoked
    | UpdateOffered
    | UpdateArrived
    | UpdateStored
    | UpdateInvalid
    | TrainingFailureReported
    | Agreed
    | Declined
    | SharesArrived
    | SharesKept
    | UnmaskFailed
    | ModelCreated
    | Evaluated
    | RoundOrdered
    | OrderEnded
    | VersionReceived
    | Drawn
    | TimePassed
    | StopRequested
    | PauseRequested
    | UnpauseRequested
)
