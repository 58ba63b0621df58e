"""The phases of a run, as its state holds them.

A field exists only in the phases in which it has a meaning. Nothing here is ever changed in place. Times are
run time in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, get_args

from fl_aggregator.configuration.masking import Masking
from fl_aggregator.round.awaited import Awaited
from fl_aggregator.round.events import UpdateMetadata
from fl_shared.protocol.messages import (
    Correction,
    ModelReference,
    TrainingRequest,
)
from fl_shared.protocol.messages import Phase as PhaseName

REJECTED: Final = "rejected: "
"""With this begins the reason why an edge is missing whose update was rejected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selecting:
    """Waits for enough eligible edges to open round ``round``, but not before ``not_before``."""

    name: ClassVar[PhaseName] = "selecting"
    round: int
    since: float
    not_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Of a region: the round that the run above asks for, from ``base``, how its edges train, and until when."""

    round: int
    base: ModelReference | None
    training: TrainingRequest
    correction: Correction | None
    deadline: float


@dataclass(frozen=True, kw_only=True)
class Collecting:
    """A round is open and waits for updates.

    ``cohort``: the edges selected so far. ``selection_size``: how many of them should be training or done.
    ``substitutes``: the next ranks of the permutation. ``updates``: the accepted ones, by client.
    ``dropped``: the selected edges that cannot contribute, and why. ``awaited``: those that have neither contributed
    nor dropped out; they may be offline. ``called``: when substitutes were selected; all others were when the round
    opened. ``encoding``: of the updates' sections. ``order``: in a region, what the run above has asked for.
    ``masking``: how the cohort masks its updates, and its keys; null if it does not. ``clip``: of a private run, if it
    changes. ``secret``: only the cohort is told of it (`drawing`).
    """

    name: ClassVar[PhaseName] = "collecting"
    round: int
    since: float
    opened: float
    deadline: float
    base: ModelReference | None
    encoding: str
    target: int
    quorum: int
    selection_size: int
    cohort: tuple[str, ...]
    substitutes: tuple[str, ...]
    awaited: Awaited = field(default_factory=Awaited)
    updates: Mapping[str, UpdateMetadata] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)
    called: Mapping[str, float] = field(default_factory=dict)
    order: Order | None = None
    masking: Masking | None = None
    clip: float | None = None
    secret: bool = False

    @property
    def version(self) -> int:
        """The version that the round makes."""
        return 0 if self.base is None else self.base.version + 1

    @property
    def included(self) -> dict[str, str]:
        """The bodies of the accepted updates by client, which a masked round sums."""
        return {name: self.updates[name].body or "" for name in sorted(self.updates)}

    def has_selected(self, client: str) -> bool:
        """Whether ``client`` is in the cohort."""
        return client in self.awaited or client in self.updates or client in self.dropped

    def waited_for(self, client: str, now: float) -> float:
        """Returns the seconds since an edge was selected, to the millisecond."""
        return round(now - self.called.get(client, self.opened), 3)


@dataclass(frozen=True, kw_only=True)
class Agreeing:
    """A round whose updates are masked has closed, and its members sign which of them are summed.

    ``missing``: the edges that did not contribute, and why. ``signatures``: by member, base64url. ``declined``: the
    members that do not sign, or do not open their shares, and why.
    """

    name: ClassVar[PhaseName] = "agreeing"
    collected: Collecting
    closed: float
    missing: Mapping[str, str]
    deadline: float
    signatures: Mapping[str, str] = field(default_factory=dict)
    declined: Mapping[str, str] = field(default_factory=dict)

    @property
    def round(self) -> int:
        """The number of the round that has closed."""
        return self.collected.round

    @property
    def masking(self) -> Masking:
        """How the updates are masked."""
        assert self.collected.masking is not None, "a masked round"
        return self.collected.masking


@dataclass(frozen=True, kw_only=True)
class Unmasking:
    """Enough members have signed which updates are summed, and open their shares of the masks of the sum.

    ``opened``: by member, the digest of its shares, which are in the spool. ``needed``: how many members' shares the
    sum is unmasked with: more than the threshold after ``failures``, which say why it failed with fewer. ``blamed``:
    because of whom.
    """

    name: ClassVar[PhaseName] = "unmasking"
    agreeing: Agreeing
    since: float
    deadline: float
    needed: int
    opened: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    blamed: tuple[str, ...] = ()

    @property
    def round(self) -> int:
        """The number of the round that has closed."""
        return self.agreeing.round

    @property
    def collected(self) -> Collecting:
        """The round as it closed."""
        return self.agreeing.collected

    @property
    def is_hopeless(self) -> bool:
        """Whether so many members have declined that there will be no more shares than there are."""
        declined = self.agreeing.declined.keys() - self.opened.keys()
        return len(self.agreeing.masking.keys) - len(declined) < self.needed


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregating:
    """A round has closed, and its average is being made.

    ``missing``: the edges that did not contribute, and why. ``unmasking``: of a masked round, what it is unmasked with
    since ``unmasked``.
    """

    name: ClassVar[PhaseName] = "aggregating"
    collected: Collecting
    closed: float
    missing: Mapping[str, str]
    unmasking: Unmasking | None = None
    unmasked: float | None = None

    @property
    def round(self) -> int:
        """The number of the round that has closed."""
        return self.collected.round


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The selection of one edge in an asynchronous run; its update counts whatever is collected when it comes.

    ``round``: which was open when it was issued; those of an edge's tickets grow. ``base``: the newest version then.
    After ``deadline`` another edge gets a ticket in addition.
    """

    round: int
    base: ModelReference
    issued: float
    deadline: float


@dataclass(frozen=True, kw_only=True)
class Buffering:
    """An asynchronous run collects updates, each from the version that was the newest when its edge began.

    ``round``: of the version for which updates are collected, since ``opened``. ``since``: when an update was accepted
    last. ``bases``: the newest versions, ascending. ``tickets``: of the edges at work. ``away``: tickets whose edge is
    offline or over its time; others work in its place, but its update still counts. ``updates``: accepted, in the order
    of their arrival; those that are too many for this round are for the next ones. ``dropped``: whose tickets ended in
    this round without an update, and why. ``making``: the round before, while its average is made. ``issued``: how many
    tickets so far.
    """

    name: ClassVar[PhaseName] = "buffering"
    round: int
    since: float
    opened: float
    bases: tuple[ModelReference, ...]
    tickets: Mapping[str, Ticket] = field(default_factory=dict)
    away: Mapping[str, Ticket] = field(default_factory=dict)
    updates: tuple[UpdateMetadata, ...] = ()
    dropped: Mapping[str, str] = field(default_factory=dict)
    making: Aggregating | None = None
    issued: int = 0

    @property
    def versions(self) -> int:
        """The number of the newest version that is decided on; its average may not be ready yet."""
        return self.bases[-1].version + (self.making is not None)

    def ticket_of(self, client: str) -> Ticket | None:
        """Returns the edge's ticket that is not answered yet, or null."""
        return self.tickets.get(client) or self.away.get(client)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluating:
    """The run waits for evaluations, on which it depends whether round ``round`` opens."""

    name: ClassVar[PhaseName] = "evaluating"
    round: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """All versions were made, the target was reached, or the privacy budget of the edges is spent."""

    name: ClassVar[PhaseName] = "finished"
    at: float
    reason: Literal["rounds", "target", "privacy-budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The run cannot continue by itself; a resume continues from ``resume_phase``."""

    name: ClassVar[PhaseName] = "failed"
    at: float
    reason: Literal["too-few-edges", "rounds-abandoned", "unknown-target", "unbounded-metric"]
    detail: str
    resume_phase: Selecting | Evaluating


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The operator has stopped the run; a resume continues in ``resume_phase``."""

    name: ClassVar[PhaseName] = "interrupted"
    at: float
    reason: str
    resume_phase: Selecting | Collecting | Agreeing | Unmasking | Aggregating | Buffering | Evaluating


Phase = (
    Selecting
    | Collecting
    | Agreeing
    | Unmasking
    | Aggregating
    | Buffering
    | Evaluating
    | Finished
    | Failed
    | Stopped
)
PHASES: Final[tuple[type[Phase], ...]] = get_args(Phase)
"""All phases, in the order in which a run passes through them."""
FINAL_PHASE_TYPES: Final = (Finished, Failed, Stopped)
"""The phases of a run that has ended."""
ROUND_PHASES: Final = (Selecting, Collecting, Agreeing, Unmasking, Aggregating, Buffering, Evaluating)
"""The phases of one round; a summary has the seconds of each."""


def buffering_of(phase: Phase) -> Buffering | None:
    """Returns the phase if an asynchronous run collects updates, or did when it was stopped; else null."""
    if isinstance(phase, Stopped):
        phase = phase.resume_phase
    return phase if isinstance(phase, Buffering) else None


def collected_round(phase: Phase) -> Collecting | None:
    """Returns the round whose updates are in the spool, or null if there is none.

    It is open, being unmasked or averaged, or was when the run was stopped.
    """
    if isinstance(phase, Stopped):
        phase = phase.resume_phase
    if isinstance(phase, Agreeing | Unmasking | Aggregating):
        phase = phase.collected
    return phase if isinstance(phase, Collecting) else None


def agreeing_of(phase: Phase) -> Agreeing | None:
    """Returns the set that the members of a masked round sign, or have signed; null if no round has come so far."""
    if isinstance(phase, Stopped):
        phase = phase.resume_phase
    if isinstance(phase, Aggregating) and phase.unmasking is not None:
        phase = phase.unmasking
    if isinstance(phase, Unmasking):
        phase = phase.agreeing
    return phase if isinstance(phase, Agreeing) else None


def unmasking_of(phase: Phase) -> Unmasking | None:
    """Returns the shares that the members of a masked round have opened; null if no round has come so far."""
    if isinstance(phase, Stopped):
        phase = phase.resume_phase
    if isinstance(phase, Aggregating):
        return phase.unmasking
    return phase if isinstance(phase, Unmasking) else None
