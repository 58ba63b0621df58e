"""What happened, in the past tense. Every event carries ``now``: run time in seconds, which stands still
while the aggregator is down. Weights are opaque here: an event names them by digest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from fl_shared.protocol.messages import ClientRole, RejectionReason, Split

Payload = Annotated[object, Field(exclude=True)]
"""The bytes of an update, or its offer. The machine hands it on without a look; the journal leaves it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateMetadata:
    """All of an update but its values. ``base`` is null for first weights; ``size`` is in bytes, ``seconds`` are those
    that the training took.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The run begins."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The aggregator was started again: the ``incarnation`` counts its starts. Edges that were present may be gone."""

    now: float
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatesLost:
    """Accepted updates of the round that was open at a resume are not in the spool (any more)."""

    now: float
    round: int
    clients: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected:
    """Our own connection is gone. A broker that is stopped in order sends everybody's will first."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnected:
    """Our own connection is back: wills may have gone unheard while it was away."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """An edge has registered; ``examples`` and ``manifest`` come with its second registration.

    ``encodings``: those in which it can send updates.
    """

    now: float
    client: str
    session: str
    device: str
    roles: tuple[ClientRole, ...]
    encodings: tuple[str, ...]
    task: str | None = None
    manifest: str | None = None
    examples: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLost:
    """An edge's will, or its farewell."""

    now: float
    client: str
    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOffered:
    """An edge has an update that is too large to be sent unasked. ``payload``: the offer."""

    now: float
    update: UpdateMetadata
    payload: Payload = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateArrived:
    """All of an update is here, and its values are not checked yet. ``payload``: an update that came whole; null for
    one that came in chunks.
    """

    now: float
    update: UpdateMetadata
    payload: Payload = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStored:
    """An update's values were checked, and it lies in the spool."""

    now: float
    update: UpdateMetadata


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateInvalid:
    """What an edge sent for a round cannot be used. ``digest`` is null where it could not even be read."""

    now: float
    client: str
    session: str
    round: int
    digest: str | None
    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFailureReported:
    """A selected edge says that it cannot train in this round."""

    now: float
    client: str
    round: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCreated:
    """The contributions of a round were averaged; the new model is on disk."""

    now: float
    round: int
    digest: str
    manifest: str


@dataclass(frozen=True, slots=True)
class ConfusionCounts:
    """``counts[i][j]``: examples of the class ``labels[i]`` that a model took for ``labels[j]``."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """An edge has evaluated a version on its split; ``examples`` is 0 if it could not, or has nothing to do it on."""

    now: float
    client: str
    session: str
    version: int
    digest: str
    split: Split
    examples: int
    loss: float
    accuracy: float
    confusion: ConfusionCounts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """Nothing happened, and that may mean something."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """The operator ends the run before its end."""

    now: float
    reason: str


Event = (
    Started
    | Resumed
    | UpdatesLost
    | Disconnected
    | Reconnected
    | Registered
    | EdgeLost
    | UpdateOffered
    | UpdateArrived
    | UpdateStored
    | UpdateInvalid
    | TrainingFailureReported
    | ModelCreated
    | Evaluated
    | TimePassed
    | StopRequested
)
