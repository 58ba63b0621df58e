"""What to do, in the imperative. The interpreter performs the effects of a step in their order.

The order is part of the machine: ``Record`` comes first whenever the state changed, so that what is published
was persisted before. `EFFECT_SPECS` says of each effect where it is performed, what is on disk by then, and which
events answer it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from fl_aggregator.round import events as on
from fl_aggregator.round.events import Event, UpdateMetadata
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

    partition: int | None
    received_round: int | None
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
class SendReply:
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

    update: UpdateMetadata
    payload: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StoreUpdate:
    """Check an update's values and write it to the spool; ``UpdateStored`` or ``UpdateInvalid`` follows."""

    update: UpdateMetadata
    payload: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Fold:
    """Add a kept update to the round's sum."""

    update: UpdateMetadata


@dataclass(frozen=True, slots=True)
class Average:
    """Make the next model out of the round's sum and write it to disk; ``ModelCreated`` follows."""

    round: int
    version: int
    base: ModelReference | None
    contributors: tuple[UpdateMetadata, ...]


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
class StoreBest:
    """This version has the best accuracy so far."""

    model: ModelReference


@dataclass(frozen=True, slots=True)
class EndRun:
    """The run is over; the state says how."""


Effect = (
    Record
    | SendReply
    | AnnounceRound
    | WithdrawRound
    | Receive
    | StoreUpdate
    | Fold
    | Average
    | PublishModel
    | PublishResult
    | WriteHistory
    | StoreBest
    | EndRun
)

Transition = tuple[Run, tuple[Effect, ...]]
"""The state after an event, and what is to be done, in this order."""


@dataclass(frozen=True, slots=True)
class EffectSpec:
    """How an effect is performed.

    ``thread``: the one that does the work. ``on_disk``: what was persisted before. ``answered_by``: the events that
    may come of it. ``at_resume``: whether a resumed run performs it once more (only the newest of each kind).
    """

    thread: Literal["loop", "worker", "both"]
    on_disk: str
    resulting_events: tuple[type[Event], ...] = ()
    repeated_on_resume: bool = False


EFFECT_SPECS: Final[dict[type[Effect], EffectSpec]] = {
    Record: EffectSpec("loop", "nothing: it is what persists the event, before any other effect of its step"),
    SendReply: EffectSpec("loop", "the event; before Accept also the update, in the spool (Keep)"),
    AnnounceRound: EffectSpec(
        "both", "the event that opened the round or called substitutes", repeated_on_resume=True
    ),
    WithdrawRound: EffectSpec("loop", "the event that ended the round", (on.UpdateOffered,)),
    Receive: EffectSpec(
        "loop", "nothing: chunks are written as they come", (on.UpdateArrived, on.UpdateInvalid)
    ),
    StoreUpdate: EffectSpec(
        "worker", "nothing: it writes the update to the spool", (on.UpdateStored, on.UpdateInvalid)
    ),
    Fold: EffectSpec("worker", "the update, in the spool, and its UpdateStored"),
    Average: EffectSpec(
        "worker", "the closing of the round; it writes the model", (on.ModelCreated,), repeated_on_resume=True
    ),
    PublishModel: EffectSpec(
        "loop", "the model, in its checkpoint, and its ModelCreated", repeated_on_resume=True
    ),
    PublishResult: EffectSpec(
        "loop", "the event that ended the round or its evaluation", repeated_on_resume=True
    ),
    WriteHistory: EffectSpec("loop", "the event that ended the round's evaluation"),
    StoreBest: EffectSpec("loop", "the model, in its checkpoint", repeated_on_resume=True),
    EndRun: EffectSpec("loop", "the event that ended the run"),
}
