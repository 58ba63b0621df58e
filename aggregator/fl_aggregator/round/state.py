"""The state of a run: its phases, and what it remembers beside them.

A field exists only in the phases in which it has a meaning. Nothing here is ever changed in place. Times are
run time in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, get_args

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.awaited import Awaited
from fl_aggregator.round.events import ConfusionCounts, Evaluated, Similarity, UpdateMetadata
from fl_aggregator.round.pace import ResponseTimes
from fl_aggregator.round.persistent_map import PersistentMap
from fl_aggregator.round.roster import Roster
from fl_shared.protocol.messages import (
    LOSS,
    Correction,
    Environment,
    MetricDeclaration,
    ModelReference,
    RejectionReason,
    Split,
    TrainingRequest,
    primary_of,
)
from fl_shared.protocol.messages import Phase as PhaseName
from fl_shared.tensors.encodings.float32 import FLOAT32


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

    @property
    def version(self) -> int:
        """The version that the round makes."""
        return 0 if self.base is None else self.base.version + 1

    def has_selected(self, client: str) -> bool:
        """Whether ``client`` is in the cohort."""
        return client in self.awaited or client in self.updates or client in self.dropped

    def waited_for(self, client: str, now: float) -> float:
        """Returns the seconds since an edge was selected, to the millisecond."""
        return round(now - self.called.get(client, self.opened), 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregating:
    """A round has closed, and its average is being made.

    ``missing``: the edges that did not contribute, and why.
    """

    name: ClassVar[PhaseName] = "aggregating"
    collected: Collecting
    closed: float
    missing: Mapping[str, str]

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
    """The run waits for evaluations, on which it depends whether another round opens."""

    name: ClassVar[PhaseName] = "evaluating"
    round: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """All versions were made, or the target was reached."""

    name: ClassVar[PhaseName] = "finished"
    at: float
    reason: Literal["rounds", "target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The run cannot continue by itself; a resume continues from ``resume_phase``."""

    name: ClassVar[PhaseName] = "failed"
    at: float
    reason: Literal["too-few-edges", "rounds-abandoned", "unknown-target"]
    detail: str
    resume_phase: Selecting | Evaluating


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The operator has stopped the run; a resume continues in ``resume_phase``."""

    name: ClassVar[PhaseName] = "interrupted"
    at: float
    reason: str
    resume_phase: Selecting | Collecting | Aggregating | Buffering | Evaluating


Phase = Selecting | Collecting | Aggregating | Buffering | Evaluating | Finished | Failed | Stopped
KEEP_LOCAL: Final = "--keep-local "
"""With this, an edge begins to say why it is unable if the setting does not fit the model."""
PHASES: Final[tuple[type[Phase], ...]] = get_args(Phase)
"""All phases, in the order in which a run passes through them."""
FINAL_PHASE_TYPES: Final = (Finished, Failed, Stopped)
"""The phases of a run that has ended."""
ROUND_PHASES: Final = (Selecting, Collecting, Aggregating, Buffering, Evaluating)
"""The phases of one round; a summary has the seconds of each."""


def buffering_of(phase: Phase) -> Buffering | None:
    """Returns the phase if an asynchronous run collects updates, or did when it was stopped; else null."""
    if isinstance(phase, Stopped):
        phase = phase.resume_phase
    return phase if isinstance(phase, Buffering) else None


def collected_round(phase: Phase) -> Collecting | None:
    """Returns the round whose updates are in the spool, or null if there is none.

    It is open or being averaged, or was when the run was stopped.
    """
    if isinstance(phase, Stopped):
        phase = phase.resume_phase
    if isinstance(phase, Aggregating):
        phase = phase.collected
    return phase if isinstance(phase, Collecting) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalScore:
    """The primary metric on an edge's holdout: of the last version, and of the model that the edge made of it."""

    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a round ended.

    ``model`` is null if it was abandoned. ``missing``: the edges that did not contribute, and why.
    ``seconds``: by phase. ``declared``: the metrics that the task declares. ``split``: on which the version was
    evaluated, null if it was not. ``first_served``: the first of the versions whose mean was evaluated, null if it was
    the version itself. ``similarity``: of the updates, null if they were not compared. ``edges``: by client, the
    primary metric of version ``edges_version`` on the edge's own holdout: of the round's version if edges were asked
    for their holdouts, else of its base, as the participants measured it before they trained. ``personal``: by client,
    of the last version with ``--personalize``. ``encoding``: of the updates' deltas.
    """

    round: int
    outcome: Literal["committed", "abandoned"]
    reason: str | None
    model: ModelReference | None
    cohort: tuple[str, ...]
    participants: tuple[str, ...]
    missing: Mapping[str, str]
    examples: int
    metrics: Mapping[str, float]
    seconds: Mapping[str, float]
    declared: tuple[MetricDeclaration, ...] = ()
    split: Split | None = None
    confusion: ConfusionCounts | None = None
    first_served: int | None = None
    similarity: Similarity | None = None
    edges: Mapping[str, float] = field(default_factory=dict)
    edges_version: int | None = None
    personal: Mapping[str, PersonalScore] = field(default_factory=dict)
    encoding: str = FLOAT32.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedRound:
    """What is remembered of a closed round, to answer late and repeated updates.

    ``accepted``: the digests of the accepted updates, by client.
    """

    round: int
    cohort: frozenset[str]
    accepted: Mapping[str, str]
    reached_target: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """How the newest ticket of an edge that has ended did so. The edge gets no other one up to round ``until``.

    ``digest``: of its update, if that was accepted; otherwise null, and ``reason`` and ``detail`` say why.
    """

    round: int
    until: int
    digest: str | None = None
    reason: RejectionReason = "not-selected"
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The newest update of an edge that is in a version: its round, its digest, and the examples behind it."""

    round: int
    digest: str
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingEvaluation:
    """A version under evaluation: the edges that have not reported yet, and the reports so far.

    ``strategy_state``: see `ModelCreated`.
    """

    model: ModelReference
    split: Split
    requested_at: float
    deadline: float
    awaited: PersistentMap[None]
    results: tuple[Evaluated, ...] = ()
    strategy_state: str | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """The whole state of a run.

    ``incarnation``: which start of the aggregator this is. ``declared``: the metrics that the task declares, null until
    an edge has said so. ``pending_summaries``: ended rounds whose line in the history is not written yet. ``metrics``:
    of the newest evaluated version, on ``split``. ``best``: the best value of the primary metric so far, on
    ``best_split``. ``counted``: by client, the updates on which what edges keep is based; empty if they keep nothing.
    ``answered``: by client; empty in a run of rounds. ``served``: the newest version, or the mean of versions in its
    place. ``personal``: by client, the scores of the edges' own models; null until they are asked for them.
    ``response_times``: of the last rounds with ``--pace auto``, from which the next one follows; empty with others.
    ``environments``: the distinct ones of the edges, at most 256, in the order in which they registered.
    ``order``: of a region, the round that it is asked for and has not opened yet.
    """

    settings: Settings
    phase: Phase
    incarnation: int = 1
    roster: Roster = field(default_factory=Roster)
    begun: bool = False
    model: ModelReference | None = None
    manifest: str | None = None
    declared: tuple[MetricDeclaration, ...] | None = None
    consecutive_abandoned: int = 0
    closed_rounds: tuple[ClosedRound, ...] = ()
    pending_summaries: tuple[Summary, ...] = ()
    evaluations: tuple[PendingEvaluation, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    split: Split | None = None
    best: float | None = None
    best_split: Split | None = None
    target_reached: bool = False
    counted: Mapping[str, Counted] = field(default_factory=dict)
    answered: Mapping[str, Answered] = field(default_factory=dict)
    served: ModelReference | None = None
    personal: Mapping[str, PersonalScore] | None = None
    response_times: tuple[ResponseTimes, ...] = ()
    environments: tuple[Environment, ...] = ()
    order: Order | None = None

    @property
    def failed_by_user(self) -> bool:
        """Whether the run has failed for a mistake in its settings, which only edges could tell."""
        match self.phase:
            case Failed(reason="unknown-target"):
                return True
            case Failed(reason="too-few-edges") if not self.begun:
                trainers = [client for client in self.roster.clients.values() if "train" in client.roles]
                return bool(trainers) and all((one.unable or "").startswith(KEEP_LOCAL) for one in trainers)
            case _:
                return False

    @property
    def is_done(self) -> bool:
        """Whether all versions were made, or the target was reached."""
        return self.version >= self.settings.rounds or self.target_reached

    @property
    def ended(self) -> bool:
        """Whether the run is over: finished, failed or stopped."""
        return isinstance(self.phase, FINAL_PHASE_TYPES)

    @property
    def primary(self) -> MetricDeclaration:
        """The metric by which versions are compared."""
        return primary_of(self.declared or ())

    @property
    def target_metric(self) -> MetricDeclaration | None:
        """The metric of the target; null without a target, and if the task declares no metric of this name."""
        target = self.settings.parsed_target
        known = (LOSS, *(self.declared or ()))
        return None if target is None else next((one for one in known if one.name == target.metric), None)

    @property
    def version(self) -> int:
        """The number of the newest version; 0 also before there are initial weights."""
        return 0 if self.model is None else self.model.version


def new_run(settings: Settings, model: ModelReference | None = None, manifest: str | None = None) -> Run:
    """Returns the state of a run before its first event.

    ``model`` and ``manifest`` describe initial weights that the user gave.
    """
    first = Selecting(round=0 if model is None else 1, since=0.0, not_before=0.0)
    return Run(settings=settings, phase=first, model=model, manifest=manifest)
