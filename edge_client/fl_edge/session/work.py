"""What an edge does: the phases of ``Session.work``, ``Session.unmasking`` and ``Session.evaluation``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fl_edge.session.privacy import Charge
from fl_shared.protocol import messages as m
from fl_shared.system.text import quantity_text
from fl_shared.transfer.upload import FinishedUpdate

# --- the round's work -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recipient:
    """The incarnation that a message was sent to, and the session of this edge that sent it."""

    session: str
    run: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """A finished update, and the selection that it was trained for."""

    selected: m.Selected
    update: FinishedUpdate


@dataclass(frozen=True, slots=True)
class StateReference:
    """What the edge keeps of a run, by the update that it came with: its run, its round and its digest.

    ``ticket``: its round is that of a ticket, and it may be in the version of a later one.
    """

    run: str
    round: int
    digest: str
    ticket: bool = False


@dataclass(frozen=True, slots=True)
class OwnState:
    """What the edge keeps of a run.

    ``staged``: with an update of which nobody knows yet whether it counts. ``personal``: a model of its own, made of
    the version ``round`` with this digest.
    """

    current: StateReference | None = None
    staged: StateReference | None = None
    personal: StateReference | None = None


@dataclass(frozen=True, slots=True)
class Idle:
    """The edge has no work in a round."""


@dataclass(frozen=True, slots=True)
class Fetching:
    """Job ``job`` fetches the base."""

    job: int
    selected: m.Selected


@dataclass(frozen=True, slots=True)
class Training:
    """Job ``job`` trains, or creates the initial weights."""

    job: int
    selected: m.Selected


@dataclass(frozen=True, slots=True)
class InlineUpload:
    """The update is small enough to be sent whole, or has not been sent yet."""


@dataclass(frozen=True, slots=True)
class AwaitingGrant:
    """The update was offered in chunks of ``chunk_size`` bytes, and no chunk has been granted since."""

    chunk_size: int


@dataclass(frozen=True, slots=True)
class SendingChunks:
    """Granted chunks were sent, of ``chunk_size`` bytes; while grants keep coming, no offer is repeated."""

    chunk_size: int


UploadPhase = InlineUpload | AwaitingGrant | SendingChunks


@dataclass(frozen=True, slots=True)
class Reporting:
    """The edge keeps its update until the aggregator answers it.

    ``sent_to`` is the recipient to which it was last sent or offered; ``None`` before. It is sent or offered
    again at ``due``; ``attempt`` counts the repetitions, and begins at 0 again with each grant. The machine
    does not read the update's data. ``uncharged``: what is to be counted before anything is sent.
    """

    selected: m.Selected
    update: FinishedUpdate
    sent_to: Recipient | None
    attempt: int
    due: float
    upload_phase: UploadPhase = InlineUpload()
    uncharged: tuple[Charge, ...] = ()


@dataclass(frozen=True, slots=True)
class ReportingFailure:
    """The edge cannot train in this round, and says so until that is answered or the round is over.

    ``sent_to``, ``attempt`` and ``due`` are as in `Reporting`.
    """

    selected: m.Selected
    detail: str
    sent_to: Recipient | None
    attempt: int
    due: float


Work = Idle | Fetching | Training | Reporting | ReportingFailure


# --- unmasking --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calm:
    """Nothing of a masked sum is asked of the edge."""


@dataclass(frozen=True, slots=True)
class Signature:
    """The edge's signature of a set of updates, whose digest is ``closing`` (hex)."""

    closing: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Shares:
    """The edge's shares for a set of updates. ``digest``: SHA-256 of ``shares``, hex; ``unopened``: see `m.Opened`."""

    closing: str
    digest: str
    shares: bytes = field(repr=False)
    unopened: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the edge does not sign or open a set of updates."""

    closing: str
    reason: m.DeclineReason
    detail: str


Answer = Signature | Shares | Refusal


@dataclass(frozen=True, slots=True)
class Answering:
    """The edge is asked to sign a set of updates, or to open it.

    ``answer`` is ``None`` until it is worked out, which has ``begun``. ``sent_to``, ``attempt`` and ``due`` are as in
    `Reporting`. It ends at ``deadline``.
    """

    asked: m.Closing | m.Reveal
    deadline: float
    begun: bool = False
    answer: Answer | None = None
    sent_to: Recipient | None = None
    attempt: int = 0
    due: float = 0.0


Unmasking = Calm | Answering


# --- evaluation -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NotEvaluating:
    """No evaluation is running, and none has ended."""


@dataclass(frozen=True, slots=True)
class Evaluating:
    """Job ``job`` fetches the announced model, or evaluates it."""

    job: int
    announced: m.ModelAnnouncement
    split: m.Split


@dataclass(frozen=True, slots=True)
class EvaluationScores:
    """The scores of one model: ``loss`` per example, and those of the ``declared`` metrics that could be measured.

    If ``examples`` is 0, the other values mean nothing. ``before``: with the loss, of the version that the edge has
    made a model of its own of; ``None`` in other evaluations.
    """

    examples: int
    loss: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    confusion: m.Confusion | None = None
    declared: tuple[m.MetricDeclaration, ...] = ()
    before: Mapping[str, float] | None = None

    @property
    def text(self) -> str:
        """The primary metric and the loss, for people."""
        values = {**self.metrics, m.LOSS.name: self.loss}
        shown = dict.fromkeys((m.primary_of(self.declared), m.LOSS))
        return ", ".join(f"{one.name} {quantity_text(values.get(one.name), one.unit)}" for one in shown)


@dataclass(frozen=True, slots=True)
class EvaluationDone:
    """The evaluation of an announced model has ended; it is not tried again if it failed.

    ``scores`` has 0 examples if there was nothing to evaluate or it failed. ``sent_to`` is the recipient to
    which the scores were last sent; ``None`` before.
    """

    announced: m.ModelAnnouncement
    split: m.Split
    scores: EvaluationScores
    sent_to: Recipient | None


EvaluationState = NotEvaluating | Evaluating | EvaluationDone
