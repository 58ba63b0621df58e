"""The events of an edge's session. ``now`` is in seconds on a clock that never goes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from fl_edge.session.privacy import Charge
from fl_edge.session.state import Fault
from fl_edge.session.work import Answer, EvaluationScores
from fl_shared.protocol import messages as m
from fl_shared.transfer.upload import FinishedUpdate


@dataclass(frozen=True, slots=True)
class ConnectionEstablished:
    """The broker has accepted a connection under a new session name.

    ``maximum_packet_size`` is the largest packet that the broker accepts, in bytes; ``None`` if it has no
    limit.
    """

    now: float
    session: str
    maximum_packet_size: int | None = None


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The connection to the broker has ended."""

    now: float


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The time that ``machine.due`` returned has come."""

    now: float


@dataclass(frozen=True, slots=True)
class RegistrationLeaves:
    """The edge's registration leaves only now, since those of other edges of its process went before it."""

    now: float


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The user or the fleet wants the edge to stop, and why."""

    now: float
    reason: str = "it was stopped"


@dataclass(frozen=True, slots=True)
class ConnectionRefused:
    """The broker refuses the connection, or a subscription that the edge cannot work without."""

    now: float
    reason: str


@dataclass(frozen=True, slots=True)
class BridgeSeen:
    """The bridge of the edge's broker to the aggregator's has been connected, or was lost."""

    now: float
    connected: bool


@dataclass(frozen=True, slots=True)
class AggregatorSeen:
    """The aggregator's presence was received.

    ``retained`` says that the broker had stored the message, so it may be old.
    """

    now: float
    presence: m.AggregatorPresence
    retained: bool


@dataclass(frozen=True, slots=True)
class PresenceSeen:
    """The edge's own presence was received from the broker; ``None`` says that it was cleared."""

    now: float
    presence: m.ClientPresence | None


@dataclass(frozen=True, slots=True)
class ModelOverdue:
    """Parts of a model that the edge fetches have not arrived in time, and were asked for again."""

    now: float


@dataclass(frozen=True, slots=True)
class Replied:
    """A reply to this client was received, perhaps for an earlier session of it."""

    now: float
    reply: m.Admitted | m.Refused | m.Grant | m.Accepted | m.Rejected | m.Limited


@dataclass(frozen=True, slots=True)
class SelectionSeen:
    """A message that opens a round was received.

    ``on_own_topic`` says that it came on ``fl/clients/<client>/work``, not on the topic of the round.
    """

    now: float
    selected: m.Selected
    on_own_topic: bool = False


@dataclass(frozen=True, slots=True)
class SelectionCleared:
    """A selection was cleared at the broker.

    ``round`` is ``None`` if it was the one on the edge's own topic.
    """

    now: float
    round: int | None


@dataclass(frozen=True, slots=True)
class UnmaskingAsked:
    """The edge was asked to sign the set of updates that a masked round sums, or to open it."""

    now: float
    asked: m.Closing | m.Reveal


@dataclass(frozen=True, slots=True)
class UnmaskingCleared:
    """The broker retains nothing any more that asks the edge to sign or to open a set of updates."""

    now: float


@dataclass(frozen=True, slots=True)
class RunKeysMade:
    """The edge has keys of ``run``, whose public halves are ``keys`` of a registration."""

    now: float
    run: str
    keys: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to what was ``asked`` is worked out; what it must not contradict is on the disk."""

    now: float
    asked: m.Closing | m.Reveal
    answer: Answer


@dataclass(frozen=True, slots=True)
class ResultSeen:
    """The result of a round was received."""

    now: float
    result: m.Result


@dataclass(frozen=True, slots=True)
class ModelAnnounced:
    """The announcement of a model was received."""

    now: float
    announced: m.ModelAnnouncement


@dataclass(frozen=True, slots=True)
class PartitionLoaded:
    """Job ``job`` has loaded the partition.

    ``examples`` counts the examples for training, ``holdout`` those held out. ``manifest`` is the digest of
    the manifest of the task's weights, which are ``values`` numbers, ``metrics`` are those that the task declares,
    ``abilities`` what its training can do besides plain SGD, ``local`` the names of the
    arrays of its model that stay on the edge.
    """

    now: float
    job: int
    examples: int
    holdout: int
    manifest: str
    metrics: tuple[m.MetricDeclaration, ...] = ()
    abilities: tuple[str, ...] = ()
    values: int = 0
    local: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fetched:
    """Job ``job`` has its model, which the runtime keeps for it."""

    now: float
    job: int


@dataclass(frozen=True, slots=True)
class Trained:
    """Job ``job`` has trained, or has created the initial weights.

    ``own``: the vectors that the edge keeps if the update counts. ``body``: of a masked update, hex; null of another.
    ``charges``: what the edge must count before it sends the update. ``epsilon``: of single examples, with these; null
    if nothing hides them.
    """

    now: float
    job: int
    update: FinishedUpdate
    own: Mapping[str, memoryview] = field(default_factory=dict)
    body: str | None = None
    charges: tuple[Charge, ...] = ()
    epsilon: float | None = None


@dataclass(frozen=True, slots=True)
class Charged:
    """What the update ``digest`` costs is on the disk; ``problem`` says why not, else it is null."""

    now: float
    digest: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ModelEvaluated:
    """Job ``job`` has evaluated its model."""

    now: float
    job: int
    scores: EvaluationScores


SEE_LOG: Final = "; the edge's log has the reason"
"""Ends what a discreet edge says of a failure."""


@dataclass(frozen=True, slots=True)
class JobFailed:
    """Job ``job`` has failed.

    ``user_error`` says that the user must fix the cause (missing data, an unknown task), so that another
    attempt is useless. ``fault`` says what is wrong then. ``detail`` may quote the edge's data; ``told`` does not, and
    is what a discreet edge says instead. ``spent``: the edge's privacy budget does not allow the training.
    """

    now: float
    job: int
    detail: str
    user_error: bool = False
    fault: Fault = "run"
    told: str = f"loading or training failed{SEE_LOG}"
    spent: bool = False


Event = (
    ConnectionEstablished
    | ConnectionLost
    | TimePassed
    | RegistrationLeaves
    | StopRequested
    | ConnectionRefused
    | AggregatorSeen
    | BridgeSeen
    | PresenceSeen
    | ModelOverdue
    | Replied
    | SelectionSeen
    | SelectionCleared
    | UnmaskingAsked
    | UnmaskingCleared
    | RunKeysMade
    | Answered
    | ResultSeen
    | ModelAnnounced
    | PartitionLoaded
    | Fetched
    | Trained
    | Charged
    | ModelEvaluated
    | JobFailed
)
