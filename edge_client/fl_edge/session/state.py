"""What one edge is doing: four small machines side by side, since a link may break while training goes on.

``registration`` is how it stands with the broker and the aggregator, ``part`` its data, ``work`` the round's work,
and ``appraisal`` the evaluation of announced models. ``Stopped`` is the end of all four.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fl_shared.protocol import messages as m
from fl_shared.tensors.encodings import registry
from fl_shared.transfer.upload import FinishedUpdate


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the edge is, and what it can do.

    ``task``: the one it insists on; ``tasks``: those that it has; ``families``: beginnings of names of which it
    has any that ends in a number. ``chunk``: bytes of an update that it sends at once, if the broker lets it.
    ``encodings``: those in which it can send updates.
    """

    client: str
    device: str
    roles: tuple[m.ClientRole, ...]
    tasks: tuple[str, ...]
    task: str | None = None
    task_prefixes: tuple[str, ...] = ()
    chunk_size: int = 2**20
    encodings: tuple[str, ...] = field(default_factory=registry.names)

    @property
    def trains(self) -> bool:
        return "train" in self.roles

    def has_task(self, task: str) -> bool:
        return task in self.tasks or any(
            task.startswith(family) and task.removeprefix(family).isdecimal() for family in self.task_prefixes
        )


# --- the link ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ActiveConnection:
    """A live connection: its ``session``, and the largest packet the broker takes (bytes; null: no limit)."""

    session: str
    maximum_packet_size: int | None = None


@dataclass(frozen=True, slots=True)
class Offline:
    """There is no connection to the broker."""


@dataclass(frozen=True, slots=True)
class Registering:
    """The first registration is out, ``attempt`` times before; the next one at ``due``."""

    connection: ActiveConnection
    attempt: int
    due: float


@dataclass(frozen=True, slots=True)
class AwaitingPartition:
    """Admitted, but parts are not given out yet. Asks again, slowly: the promised reply may get lost."""

    connection: ActiveConnection
    attempt: int
    due: float


@dataclass(frozen=True, slots=True)
class Loading:
    """Admitted with a part that is being loaded."""

    connection: ActiveConnection


@dataclass(frozen=True, slots=True)
class Confirming:
    """The second registration (manifest, examples) is out."""

    connection: ActiveConnection
    attempt: int
    due: float


@dataclass(frozen=True, slots=True)
class RegistrationComplete:
    """Everything is said. May be selected."""

    connection: ActiveConnection


AdmittedPhase = AwaitingPartition | Loading | Confirming | RegistrationComplete
"""The links on which the aggregator knows this session."""
RegistrationPhase = Offline | Registering | AdmittedPhase


@dataclass(frozen=True, slots=True)
class Membership:
    """The run and incarnation whose reply admitted the edge, and what it said. Outlives the connection."""

    run: str
    incarnation: int
    task: str
    partition: m.Partition | None


# --- the part of the data ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoPartition:
    pass


@dataclass(frozen=True, slots=True)
class LoadingPartition:
    """Job ``job`` loads it; ``failures`` earlier ones did not."""

    job: int
    task: str
    partition: m.Partition
    failures: int = 0


@dataclass(frozen=True, slots=True)
class LoadedPartition:
    """``examples`` to train on, ``holdout`` for evaluation; ``manifest``: digest of the weights' manifest."""

    task: str
    partition: m.Partition
    examples: int
    holdout: int
    manifest: str


PartitionState = NoPartition | LoadingPartition | LoadedPartition


# --- the round's work -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom something was sent to: in which session of ours, to which start of the aggregator."""

    session: str
    run: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """A finished update, and the selection that it was made for."""

    selected: m.Selected
    update: FinishedUpdate


@dataclass(frozen=True, slots=True)
class Idle:
    pass


@dataclass(frozen=True, slots=True)
class Fetching:
    """Job ``job`` fetches the base model."""

    job: int
    selected: m.Selected


@dataclass(frozen=True, slots=True)
class Training:
    """Job ``job`` trains, or makes the initial weights."""

    job: int
    selected: m.Selected


@dataclass(frozen=True, slots=True)
class InlineUpload:
    """The update is small enough to be sent in one message (or was not sent yet)."""


@dataclass(frozen=True, slots=True)
class AwaitingGrant:
    """It was offered in chunks of ``chunk_size`` bytes, and nothing was granted since."""

    chunk_size: int


@dataclass(frozen=True, slots=True)
class SendingChunks:
    """Chunks were asked for, and sent; while that goes on, the offer need not be repeated."""

    chunk_size: int


UploadPhase = InlineUpload | AwaitingGrant | SendingChunks


@dataclass(frozen=True, slots=True)
class Reporting:
    """The update is kept until the aggregator answers it; ``sent_to``: the last one it was sent, or offered, to.

    The machine does not look into its data. At ``due`` it is sent or offered again, ``attempt`` times before.
    """

    selected: m.Selected
    update: FinishedUpdate
    sent_to: Recipient | None
    attempt: int
    due: float
    upload_phase: UploadPhase = InlineUpload()


@dataclass(frozen=True, slots=True)
class ReportingFailure:
    """Cannot train in this round, and says so until the round is over."""

    selected: m.Selected
    detail: str
    sent_to: Recipient | None
    attempt: int
    due: float


Work = Idle | Fetching | Training | Reporting | ReportingFailure


# --- evaluation -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NotEvaluating:
    pass


@dataclass(frozen=True, slots=True)
class Evaluating:
    """Job ``job`` fetches the announced model, or evaluates it."""

    job: int
    announced: m.ModelAnnouncement
    split: m.Split


@dataclass(frozen=True, slots=True)
class EvaluationScores:
    """How a model does: ``loss`` per example, ``accuracy`` in 0…1; neither says anything if ``examples`` is 0."""

    examples: int
    loss: float
    accuracy: float
    confusion: m.Confusion | None = None


@dataclass(frozen=True, slots=True)
class EvaluationDone:
    """``appraisal`` is one of no examples if it could not be made; it is not tried again."""

    announced: m.ModelAnnouncement
    split: m.Split
    scores: EvaluationScores
    sent_to: Recipient | None


EvaluationState = NotEvaluating | Evaluating | EvaluationDone


# --- the whole --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RetainedMessages:
    """What lies at the broker from one start of an aggregator; it may be seen before the edge is admitted."""

    run: str
    incarnation: int
    selected: m.Selected | None = None
    on_own_topic: bool = False
    """``selected`` came on the edge's own topic, which only selected edges get."""
    announced: m.ModelAnnouncement | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """One edge while it lives.

    ``settled``: no work is taken up for this round of the member's run or an earlier one. ``aggregator``: the
    newest presence seen on this connection. ``seq`` and ``job`` count what was sent and started. ``kept``: what an
    earlier process of this edge had finished, until it is known whether the run that wants it is still there.
    """

    identity: Identity
    seq: int = 0
    job: int = 0
    registration: RegistrationPhase = Offline()
    membership: Membership | None = None
    partition_state: PartitionState = NoPartition()
    work: Work = Idle()
    evaluation: EvaluationState = NotEvaluating()
    last_handled_round: int = -1
    retained_messages: tuple[RetainedMessages, ...] = ()
    aggregator: m.AggregatorPresence | None = None
    restored_update: PendingUpdate | None = None

    @property
    def connection(self) -> ActiveConnection | None:
        return None if isinstance(self.registration, Offline) else self.registration.connection

    def recipient(self) -> Recipient | None:
        """To whom this session may speak of rounds now, or null."""
        if self.membership is None or not isinstance(self.registration, AdmittedPhase):
            return None
        return Recipient(
            self.registration.connection.session, self.membership.run, self.membership.incarnation
        )

    def pending_update(self) -> PendingUpdate | None:
        """The update that must outlive this process: it is not answered yet."""
        match self.work:
            case Reporting(selected=selected, update=update):
                return PendingUpdate(selected, update)
            case _:
                return self.restored_update

    def own_retained_messages(self) -> RetainedMessages | None:
        """What was posted by the aggregator that the edge belongs to."""
        for post in self.retained_messages:
            if self.membership and (post.run, post.incarnation) == (
                self.membership.run,
                self.membership.incarnation,
            ):
                return post
        return None


@dataclass(frozen=True, slots=True)
class Stopped:
    """The edge has ended: ``exit_code`` 130 when asked to, 2 for the user's mistake, 1 else."""

    identity: Identity
    exit_code: int
    reason: str


SessionState = Session | Stopped
