"""What can happen to an edge's session. ``now`` is in seconds on a clock that only ever grows."""

from __future__ import annotations

from dataclasses import dataclass

from fl_edge.session.state import Evaluation
from fl_shared.protocol import messages as m
from fl_shared.transfer.upload import FinishedUpdate


@dataclass(frozen=True, slots=True)
class Connected:
    """``largest``: the broker's maximum packet size (bytes), if it has one."""

    now: float
    session: str
    largest: int | None = None


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
    """``personal``: on ``fl/clients/<client>/work``."""

    now: float
    selected: m.Selected
    personal: bool = False


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
class PartLoaded:
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
class Evaluated:
    now: float
    job: int
    appraisal: Evaluation


@dataclass(frozen=True, slots=True)
class JobFailed:
    """``users_mistake``: the user can mend it (data missing, unknown task), and trying again would not."""

    now: float
    job: int
    detail: str
    users_mistake: bool = False


Event = (
    Connected
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
    | PartLoaded
    | Fetched
    | Trained
    | Evaluated
    | JobFailed
)
