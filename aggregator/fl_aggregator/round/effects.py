"""What to do, in the imperative. The interpreter performs the effects of a step in their order.

The order is part of the machine: ``Record`` comes first whenever the state changed, so that what is published
was persisted before. `PERFORMANCE` says of each effect where it is performed, what is on disk by then, and which
events answer it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from fl_aggregator.round import events as on
from fl_aggregator.round.events import Event, UpdateFacts
from fl_aggregator.round.state import Run, Summary
from fl_shared.protocol.messages import ModelReference, RefusalReason, RejectionReason, Split


@dataclass(frozen=True, slots=True)
class Record:
    """Append the event to the journal: replayed, it takes the state where it is now."""

    event: Event


@dataclass(frozen=True, slots=True)
class Admit:
    """``part`` is null for who does not train, or whose part is not given out yet.

    ``examples`` are those of the registration that is answered.
    """

    part: int | None
    held: int | None
    examples: int | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class Accept:
    round: int
    digest: str


@dataclass(frozen=True, slots=True)
class Reject:
    round: int
    digest: str | None
    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer one session of a client."""

    client: str
    session: str
    body: Admit | Refuse | Accept | Reject


@dataclass(frozen=True, slots=True)
class AnnounceRound:
    """Publish who is selected (again, with a longer cohort, when substitutes are called)."""

    round: int
    base: ModelReference | None
    encoding: str
    cohort: tuple[str, ...]
    deadline: float


@dataclass(frozen=True, slots=True)
class WithdrawRound:
    """Clear what is retained of a round but its result, and forget its updates."""

    round: int


@dataclass(frozen=True, slots=True)
class Receive:
    """Take an offered update in, chunk by chunk; ``UpdateArrived`` follows when all of it is here."""

    update: UpdateFacts
    payload: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Keep:
    """Check an update's values and write it to the spool; ``UpdateKept`` or ``UpdateUnusable`` follows."""

    update: UpdateFacts
    payload: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Fold:
    """Add a kept update to the round's sum."""

    update: UpdateFacts


@dataclass(frozen=True, slots=True)
class Average:
    """Make the next model out of the round's sum and write it to disk; ``ModelMade`` follows."""

    round: int
    version: int
    base: ModelReference | None
    contributors: tuple[UpdateFacts, ...]


@dataclass(frozen=True, slots=True)
class PublishModel:
    """Publish a version; ``evaluate`` is the split on which edges are asked to evaluate it."""

    round: int
    model: ModelReference
    evaluate: Split | None


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Publish how a round ended (again, once its version has been evaluated)."""

    summary: Summary


@dataclass(frozen=True, slots=True)
class WriteHistory:
    """Append the round's line to the history; nothing will be added to it any more."""

    summary: Summary


@dataclass(frozen=True, slots=True)
class KeepBest:
    """This version has the best accuracy so far."""

    model: ModelReference


@dataclass(frozen=True, slots=True)
class End:
    """The run is over; the state says how."""


Effect = (
    Record
    | Reply
    | AnnounceRound
    | WithdrawRound
    | Receive
    | Keep
    | Fold
    | Average
    | PublishModel
    | PublishResult
    | WriteHistory
    | KeepBest
    | End
)

Step = tuple[Run, tuple[Effect, ...]]
"""The state after an event, and what is to be done, in this order."""


@dataclass(frozen=True, slots=True)
class Performance:
    """How an effect is performed.

    ``thread``: the one that does the work. ``on_disk``: what was persisted before. ``answered_by``: the events that
    may come of it. ``at_resume``: whether a resumed run performs it once more (only the newest of each kind).
    """

    thread: Literal["loop", "worker", "both"]
    on_disk: str
    answered_by: tuple[type[Event], ...] = ()
    at_resume: bool = False


PERFORMANCE: Final[dict[type[Effect], Performance]] = {
    Record: Performance(
        "loop", "nothing: it is what persists the event, before any other effect of its step"
    ),
    Reply: Performance("loop", "the event; before Accept also the update, in the spool (Keep)"),
    AnnounceRound: Performance(
        "both", "the event that opened the round or called substitutes", at_resume=True
    ),
    WithdrawRound: Performance("loop", "the event that ended the round", (on.UpdateOffered,)),
    Receive: Performance(
        "loop", "nothing: chunks are written as they come", (on.UpdateArrived, on.UpdateUnusable)
    ),
    Keep: Performance(
        "worker", "nothing: it writes the update to the spool", (on.UpdateKept, on.UpdateUnusable)
    ),
    Fold: Performance("worker", "the update, in the spool, and its UpdateKept"),
    Average: Performance(
        "worker", "the closing of the round; it writes the model", (on.ModelMade,), at_resume=True
    ),
    PublishModel: Performance("loop", "the model, in its checkpoint, and its ModelMade", at_resume=True),
    PublishResult: Performance("loop", "the event that ended the round or its evaluation", at_resume=True),
    WriteHistory: Performance("loop", "the event that ended the round's evaluation"),
    KeepBest: Performance("loop", "the model, in its checkpoint", at_resume=True),
    End: Performance("loop", "the event that ended the run"),
}
