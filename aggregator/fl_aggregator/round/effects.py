"""Effects: what the machine asks the interpreter to do, named in the imperative.

The interpreter performs the effects of a step in their order, which is part of the machine: ``Record`` comes
first whenever the state changed, so that what is published was persisted before. `EFFECT_SPECS` says for each
effect where it is performed, what is on disk by then, and which events answer it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from fl_aggregator.configuration.masking import Masking
from fl_aggregator.round import events as on
from fl_aggregator.round.events import Event, UpdateMetadata
from fl_aggregator.round.phases import Order, Ticket
from fl_aggregator.round.state import Counted, Run, Summary
from fl_shared.protocol.messages import (
    CommandName,
    ModelReference,
    RefusalReason,
    RejectionReason,
    Split,
)


@dataclass(frozen=True, slots=True)
class Record:
    """Append the event to the journal; a replay then reaches the same state."""

    event: Event


@dataclass(frozen=True, slots=True)
class Admit:
    """Admit an edge to the run.

    ``partition`` is null if the edge does not train, or has not been assigned one yet. ``finished_round`` is
    the newest round, if nothing more of the edge is needed in it, or null. ``examples`` repeats the number in the
    registration that is answered. ``newest_round`` is the newest round that has been opened, or null, and
    ``awaited`` says whether it is open and waits for an update of this edge. ``counted``: its newest update that is in
    a version. ``sums``: it is a regional aggregator, and must know how to add up.
    """

    partition: int | None
    finished_round: int | None
    examples: int | None = None
    newest_round: int | None = None
    awaited: bool = False
    counted: Counted | None = None
    sums: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """Turn an edge away, with the reason."""

    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class Accept:
    """Tell an edge that its update is stored, so that it may delete its copy."""

    round: int
    digest: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Tell an edge that its update or offer will not count, and why.

    ``digest`` is null if it could not be read.
    """

    round: int
    digest: str | None
    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True)
class SendReply:
    """Send a reply to one session of a client."""

    client: str
    session: str
    body: Admit | Refuse | Accept | Reject


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell who has sent a command whether it is obeyed, and how the run is now, or why not.

    ``to``: as its event had it. ``command``: null if it could not be read.
    """

    to: object
    command: CommandName | None
    accepted: bool
    detail: str


@dataclass(frozen=True, slots=True)
class AnnounceRound:
    """Publish the cohort of an open round; again, with more edges, when substitutes are selected.

    ``deadline`` is run time in seconds. ``order``, ``masking``, ``clip``, ``secret``: see `Collecting`.
    """

    round: int
    base: ModelReference | None
    encoding: str
    cohort: tuple[str, ...]
    deadline: float
    order: Order | None = None
    masking: Masking | None = None
    clip: float | None = None
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Draw:
    """Draw the secret cohort of a round: each of ``eligible`` with probability ``rate``, independently."""

    round: int
    eligible: tuple[str, ...]
    rate: float


@dataclass(frozen=True, slots=True)
class DeclineOrder:
    """Tell the run above that this region has no sum for a round, and why."""

    round: int
    detail: str


@dataclass(frozen=True, slots=True)
class WithdrawRound:
    """Clear the retained messages of a round, except its result, and delete its updates."""

    round: int


@dataclass(frozen=True, slots=True)
class IssueTicket:
    """Ask one edge to train from the newest version; again, when the run is resumed or the edge is over its time."""

    client: str
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class WithdrawTicket:
    """Clear the retained ticket of an edge that has ended, and end its upload if one is under way."""

    client: str
    round: int


@dataclass(frozen=True, slots=True)
class CloseBuffer:
    """Clear what is retained of a round of an asynchronous run, except its result, and delete these updates."""

    round: int
    updates: tuple[UpdateMetadata, ...]


@dataclass(frozen=True, slots=True)
class Receive:
    """Receive an offered update in chunks; ``UpdateArrived`` follows when it is complete.

    ``UpdateInvalid`` follows if it cannot be used. ``payload`` is the offer.
    """

    update: UpdateMetadata
    payload: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StoreUpdate:
    """Check an update's values and write it to the spool; ``UpdateStored`` or ``UpdateInvalid`` follows.

    ``payload`` is the update if it came whole, and null if it came in chunks.
    """

    update: UpdateMetadata
    payload: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Fold:
    """Add a stored update to the sum of ``round``, which is the update's own in a run of rounds."""

    update: UpdateMetadata
    round: int


@dataclass(frozen=True, slots=True)
class PublishClosing:
    """Ask the members of a masked round to sign which updates are summed; ``included``: their bodies, by client."""

    round: int
    included: Mapping[str, str]
    deadline: float


@dataclass(frozen=True, slots=True)
class PublishReveal:
    """Show the members the set with its signatures, and ask them to open their shares of its masks."""

    round: int
    included: Mapping[str, str]
    signatures: Mapping[str, str]
    deadline: float


@dataclass(frozen=True, slots=True)
class KeepShares:
    """Write the shares that a member has opened to the spool; ``SharesKept`` follows. ``payload``: the message."""

    client: str
    session: str
    round: int
    digest: str
    payload: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Average:
    """Make the next version from the round's sum and write it to disk; ``ModelCreated`` follows.

    In a region: hand the sum to the run above, which makes the version, or does not (``OrderEnded``).

    ``heard``: the examples of all edges that have contributed to a version, before this round and with it; 0 without a
    correction. ``holders``: of a masked round, the members with whose shares it is unmasked, in ascending order;
    ``UnmaskFailed`` follows if that fails. ``clip``: see `Collecting`.
    ``accuracies``: of a private run, the sum of the edges' accuracies of the base (`bounded_mean.on_grid`); null if
    they do not say them.
    """

    round: int
    version: int
    base: ModelReference | None
    contributors: tuple[UpdateMetadata, ...]
    heard: tuple[int, int] = (0, 0)
    holders: tuple[str, ...] = ()
    clip: float | None = None
    accuracies: int | None = None


@dataclass(frozen=True, slots=True)
class PublishModel:
    """Publish a version; ``evaluate`` is the split on which edges should evaluate it, or null.

    ``strategy_state``: see `ModelCreated`. It is not published. ``served``: the mean to evaluate and to predict with,
    with the number of its last version; null if it is the version itself.
    """

    round: int
    model: ModelReference
    evaluate: Split | None
    strategy_state: str | None = None
    served: ModelReference | None = None


@dataclass(frozen=True, slots=True)
class Personalize:
    """Ask the edges to make models of their own from the last version, or from the mean that is served in its place."""

    model: ModelReference


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Publish how a round ended; again when its version has been evaluated."""

    summary: Summary


@dataclass(frozen=True, slots=True)
class WriteHistory:
    """Append the round's line to the history; the line is final."""

    summary: Summary


@dataclass(frozen=True, slots=True)
class StoreBest:
    """Keep this version as the best one so far, by the primary metric."""

    model: ModelReference


@dataclass(frozen=True, slots=True)
class EndRun:
    """The run is over; the state says how."""


Effect = (
    Record
    | SendReply
    | Answer
    | AnnounceRound
    | Draw
    | DeclineOrder
    | WithdrawRound
    | IssueTicket
    | WithdrawTicket
    | CloseBuffer
    | Receive
    | StoreUpdate
    | Fold
    | PublishClosing
    | PublishReveal
    | KeepShares
    | Average
    | PublishModel
    | Personalize
    | PublishResult
    | WriteHistory
    | StoreBest
    | EndRun
)

Transition = tuple[Run, tuple[Effect, ...]]
"""The state after an event, and the effects to perform, in this order."""


@dataclass(frozen=True, slots=True)
class EffectSpec:
    """How an effect is performed.

    ``thread``: the thread that does the work. ``on_disk``: what was persisted before. ``resulting_events``:
    the events that may answer it. ``repeated_on_resume``: whether a resumed run performs it once more (only
    the newest of each kind).
    """

    thread: Literal["loop", "worker", "both"]
    on_disk: str
    resulting_events: tuple[type[Event], ...] = ()
    repeated_on_resume: bool = False


EFFECT_SPECS: Final[dict[type[Effect], EffectSpec]] = {
    Record: EffectSpec("loop", "nothing: it is what persists the event, before any other effect of its step"),
    SendReply: EffectSpec("loop", "the event; before Accept also the update, in the spool (Keep)"),
    Answer: EffectSpec("loop", "the event, if it has changed the state"),
    AnnounceRound: EffectSpec(
        "both", "the event that opened the round or called substitutes", repeated_on_resume=True
    ),
    Draw: EffectSpec("loop", "nothing: nobody is told before the cohort is recorded", (on.Drawn,)),
    DeclineOrder: EffectSpec("loop", "the event that ended the round, or its wait for edges"),
    WithdrawRound: EffectSpec("loop", "the event that ended the round", (on.UpdateOffered,)),
    IssueTicket: EffectSpec("both", "the event that led to it", repeated_on_resume=True),
    WithdrawTicket: EffectSpec("loop", "the event that ended the ticket", (on.UpdateOffered,)),
    CloseBuffer: EffectSpec("loop", "the event that ended the round"),
    Receive: EffectSpec(
        "loop", "nothing: chunks are written as they come", (on.UpdateArrived, on.UpdateInvalid)
    ),
    StoreUpdate: EffectSpec(
        "worker", "nothing: it writes the update to the spool", (on.UpdateStored, on.UpdateInvalid)
    ),
    Fold: EffectSpec("worker", "the update, in the spool, and its UpdateStored"),
    PublishClosing: EffectSpec("loop", "the event that closed the round", repeated_on_resume=True),
    PublishReveal: EffectSpec("loop", "the signatures", repeated_on_resume=True),
    KeepShares: EffectSpec("loop", "nothing: it writes the shares to the spool", (on.SharesKept,)),
    Average: EffectSpec(
        "worker",
        "the closing of the round; it writes the model",
        (on.ModelCreated, on.UnmaskFailed),
        repeated_on_resume=True,
    ),
    PublishModel: EffectSpec(
        "loop", "the model, in its checkpoint, and its ModelCreated", repeated_on_resume=True
    ),
    Personalize: EffectSpec(
        "loop", "the event that ended the last evaluation", (on.Evaluated,), repeated_on_resume=True
    ),
    PublishResult: EffectSpec(
        "loop", "the event that ended the round or its evaluation", repeated_on_resume=True
    ),
    WriteHistory: EffectSpec("loop", "the event that ended the round's evaluation"),
    StoreBest: EffectSpec("loop", "the model, in its checkpoint", repeated_on_resume=True),
    EndRun: EffectSpec("loop", "the event that ended the run"),
}
"""One row for each effect; the tests compare it with the interpreter."""
