"""What an edge's session asks for. They are performed in the order in which ``step`` gives them.

A job that is started ends with exactly one event of its number (``PartitionLoaded``, ``Fetched`` then ``Trained``
or ``Evaluated``, or ``JobFailed``), or after ``Cancel`` with none that matters. The model that a job has
fetched is kept for it until then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fl_edge.session.state import PendingUpdate
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.transfer.upload import FinishedUpdate, Sender


@dataclass(frozen=True, slots=True)
class Send:
    topic: t.Topic
    message: m.Message
    retain: bool = False


@dataclass(frozen=True, slots=True)
class SendChunks:
    """Send these chunks of the update, in this order, numbered from ``first_seq`` on."""

    sender: Sender
    update: FinishedUpdate
    chunk_size: int
    chunks: tuple[int, ...]
    first_seq: int


@dataclass(frozen=True, slots=True)
class SaveUpdate:
    """Have it outlive this process, in the place of what was kept before."""

    pending: PendingUpdate


@dataclass(frozen=True, slots=True)
class DeleteUpdate:
    """Nothing is kept any more."""


@dataclass(frozen=True, slots=True)
class Load:
    job: int
    task: str
    partition: m.Partition


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get the model with this digest, within ``timeout`` seconds."""

    job: int
    digest: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Train:
    """Train from the base that the same job has fetched, or make the initial weights where there is none."""

    job: int
    selected: m.Selected
    partition: m.Partition


@dataclass(frozen=True, slots=True)
class Evaluate:
    """``partition`` for the split ``holdout``, null for ``test``."""

    job: int
    task: str
    digest: str
    split: m.Split
    partition: m.Partition | None


@dataclass(frozen=True, slots=True)
class Cancel:
    job: int


@dataclass(frozen=True, slots=True)
class ServeModel:
    """Predictions may be answered with this model from now on."""

    announced: m.ModelAnnouncement


@dataclass(frozen=True, slots=True)
class Disconnect:
    """For good. What was sent before goes out first."""


@dataclass(frozen=True, slots=True)
class LogNotice:
    text: str
    level: Literal["info", "warning", "error"] = "info"


Effect = (
    Send
    | SendChunks
    | SaveUpdate
    | DeleteUpdate
    | Load
    | Fetch
    | Train
    | Evaluate
    | Cancel
    | ServeModel
    | Disconnect
    | LogNotice
)
