"""What can happen to an edge's session. ``now`` is in seconds on a clock that only ever grows."""

from __future__ import annotations

from dataclasses import dataclass

from fl_edge.session.state import EvaluationScores
from fl_shared.protocol import messages as m
from fl_shared.transfer.upload import FinishedUpdate


@dataclass(frozen=True, slots=True)
class ConnectionEstablished:
    """``maximum_packet_size``: the broker's maximum packet size (bytes), if it has one."""

    now: float
    session: str
    maximum_packet_size: int | None = None


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    now: float


@dataclass(frozen=True, slots=True)
class TimePassed:
    now: float


@dataclass(frozen=True, slots=True)
class StopRequested:
    now: float


@dataclass(frozen=True, slots=True)
class ConnectionRefused:
    """The broker will not have it, or not let it hear what is meant for it."""

    now: float
    reason: str


@dataclass(frozen=True, slots=True)
class AggregatorSeen:
    """``retained``: the broker had kept it, so it may be old."""

    now: float
    presence: m.AggregatorPresence
    retained: bool


@dataclass(frozen=True, slots=True)
class PresenceSeen:
    """The edge's own presence at the broker; null: it was cleared."""

    now: float
    presence: m.ClientPresence | None


@dataclass(frozen=True, slots=True)
class Replied:
    now: float
    reply: m.Admitted | m.Refused | m.Grant | m.Accepted | m.Rejected | m.Limited


@dataclass(frozen=True, slots=True)
class SelectionSeen:
    """``on_own_topic``: on ``fl/clients/<client>/work``."""

    now: float
    selected: m.Selected
    on_own_topic: bool = False


@dataclass(frozen=True, slots=True)
class SelectionCleared:
    """``round`` is null when the edge's own work topic was cleared."""

    now: float
    round: int | None


@dataclass(frozen=True, slots=True)
class ResultSeen:
    now: float
    result: m.Result


@dataclass(frozen=True, slots=True)
class ModelAnnounced:
    now: float
    announced: m.ModelAnnouncement


@dataclass(frozen=True, slots=True)
class PartitionLoaded:
    now: float
    job: int
    examples: int
    holdout: int
    manifest: str


@dataclass(frozen=True, slots=True)
class Fetched:
    now: float
    job: int


@dataclass(frozen=True, slots=True)
class Trained:
    now: float
    job: int
    update: FinishedUpdate


@dataclass(frozen=True, slots=True)
class ModelEvaluated:
    now: float
    job: int
    scores: EvaluationScores


@dataclass(frozen=True, slots=True)
class JobFailed:
    """``user_error``: the user can mend it (data missing, unknown task), and trying again would not."""

    now: float
    job: int
    detail: str
    user_error: bool = False


Event = (
    ConnectionEstablished
    | ConnectionLost
    | TimePassed
    | StopRequested
    | ConnectionRefused
    | AggregatorSeen
    | PresenceSeen
    | Replied
    | SelectionSeen
    | SelectionCleared
    | ResultSeen
    | ModelAnnounced
    | PartitionLoaded
    | Fetched
    | Trained
    | ModelEvaluated
    | JobFailed
)
