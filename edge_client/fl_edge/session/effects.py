"""The effects that an edge's session asks for, performed in the order in which ``step`` returns them.

A job's events carry its number. It ends with exactly one of ``PartitionLoaded``, ``Trained``,
``ModelEvaluated`` and ``JobFailed``; ``Fetched`` comes before if it needs a model. After ``Cancel`` its
events are ignored. The model that a job has fetched is kept until the job uses it or is cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fl_edge.session import privacy
from fl_edge.session.work import PendingUpdate, StateReference
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.manifest import Manifest
from fl_shared.transfer.upload import FinishedUpdate, Sender


@dataclass(frozen=True, slots=True)
class Send:
    """Publish a message on ``topic``; the broker keeps it if ``retain`` is true."""

    topic: t.Topic
    message: m.Message
    retain: bool = False


@dataclass(frozen=True, slots=True)
class SendChunks:
    """Send these chunks of an update, in this order, with sequence numbers from ``first_seq`` on.

    All chunks but the last have ``chunk_size`` bytes.
    """

    sender: Sender
    update: FinishedUpdate
    chunk_size: int
    chunks: tuple[int, ...]
    first_seq: int


@dataclass(frozen=True, slots=True)
class SaveUpdate:
    """Save a finished update so that it outlives this process, in place of the one saved before."""

    pending: PendingUpdate


@dataclass(frozen=True, slots=True)
class DeleteUpdate:
    """Delete the saved update."""


@dataclass(frozen=True, slots=True)
class Charge:
    """Write down what an update costs, before anything of it is sent; ``Charged`` follows at once.

    An update with this ``digest`` that has been written down is not charged again.
    """

    run: str
    round: int
    digest: str
    charges: tuple[privacy.Charge, ...]


@dataclass(frozen=True, slots=True)
class StageState:
    """Write what the training has left to keep, beside what counts; before its update is saved or sent."""

    reference: StateReference
    vectors: Mapping[str, memoryview] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PromoteState:
    """Make what is staged what counts."""


@dataclass(frozen=True, slots=True)
class DropState:
    """Delete what is kept: what is staged, what counts, the edge's own model, or several of these."""

    staged: bool = False
    current: bool = False
    personal: bool = False


@dataclass(frozen=True, slots=True)
class KeepPersonal:
    """Keep a model of the edge's own, in place of the one before."""

    reference: StateReference
    vectors: Mapping[str, memoryview] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Load:
    """Load a partition of the task's data in job ``job``.

    ``run_weights``: compare the weights of the task's model with these first, which are those of the run.
    """

    job: int
    task: str
    partition: m.Partition
    run_weights: Manifest | None = None


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get the model with this digest, and its ``companions``, within ``timeout`` seconds, for job ``job``."""

    job: int
    digest: str
    timeout: float
    companions: tuple[m.Companion, ...] = ()


@dataclass(frozen=True, slots=True)
class Train:
    """Train from the base that the same job has fetched; without a base, create the initial weights.

    ``spent``: what the edge has been charged so far.
    """

    job: int
    selected: m.Selected
    partition: m.Partition
    spent: tuple[privacy.Charge, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Evaluate the model that the same job has fetched, on one split.

    It is a model of ``run``. ``partition`` is given for the split ``holdout``, and ``None`` for ``test``.
    """

    job: int
    run: str
    task: str
    digest: str
    split: m.Split
    partition: m.Partition | None


@dataclass(frozen=True, slots=True)
class Personalize:
    """Train a model of the edge's own from the one that the same job has fetched, which was ``announced``."""

    job: int
    announced: m.ModelAnnouncement
    partition: m.Partition


@dataclass(frozen=True, slots=True)
class MakeRunKeys:
    """Make keys of ``run`` and keep them, in place of those of another run; ``RunKeysMade`` follows at once.

    Those that there are of this run stay.
    """

    run: str


@dataclass(frozen=True, slots=True)
class DropRunKeys:
    """Delete the keys of the run before, and what was signed with them."""


@dataclass(frozen=True, slots=True)
class WorkOutAnswer:
    """Sign the set of updates that is ``asked`` for, or open it, or say why not; ``Answered`` follows at once.

    It is a set of the round of ``selected``, whose model has ``values`` numbers and the digest ``manifest`` of their
    arrays. ``partition``: the edge's. ``body``: that of the edge's own update; ``None`` if it is not known.
    """

    asked: m.Closing | m.Reveal
    selected: m.Selected
    partition: m.Partition
    manifest: str
    values: int
    body: str | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel job ``job``, including its fetch; nothing that it still reports counts."""

    job: int


@dataclass(frozen=True, slots=True)
class ServeModel:
    """Answer prediction requests with this model from now on, once it has been fetched."""

    announced: m.ModelAnnouncement


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection for good, after the messages that were sent before have gone out."""


@dataclass(frozen=True, slots=True)
class LogNotice:
    """Log a text for the user, together with the edge's id.

    ``told``: the text as others may know it who must know nothing of the edge's data; null for none.
    """

    text: str
    level: Literal["info", "warning", "error"] = "info"
    told: str | None = None

    @classmethod
    def of_no_data(cls, text: str, level: Literal["info", "warning", "error"] = "info") -> LogNotice:
        """A notice with nothing of the edge's data in it."""
        return cls(text, level, text)


Effect = (
    Send
    | SendChunks
    | SaveUpdate
    | DeleteUpdate
    | Charge
    | StageState
    | PromoteState
    | DropState
    | KeepPersonal
    | Load
    | Fetch
    | Train
    | Evaluate
    | Personalize
    | MakeRunKeys
    | DropRunKeys
    | WorkOutAnswer
    | Cancel
    | ServeModel
    | Disconnect
    | LogNotice
)
