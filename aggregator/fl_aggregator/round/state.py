"""What the round machine is made of: its phases, what it remembers of closed rounds, and the whole state.

A field exists only in the phases in which it means something. Nothing here is ever changed in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Literal, get_args

from fl_aggregator.round.events import ConfusionCounts, Evaluated, UpdateMetadata
from fl_aggregator.round.roster import Roster
from fl_aggregator.settings import Settings
from fl_shared.protocol.messages import ModelReference, Split
from fl_shared.protocol.messages import Phase as PhaseName


@dataclass(frozen=True, slots=True, kw_only=True)
class Selecting:
    """Waiting for enough eligible edges to open round ``round``; not before ``not_before``."""

    name: ClassVar[PhaseName] = "selecting"
    round: int
    since: float
    not_before: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Collecting:
    """A round is open. ``cohort`` is who was called so far, ``width`` how many are to be at work or done.

    ``encoding``: of the sections of its updates.

    ``substitutes`` are the next ranks of the permutation; ``out`` is who was called but cannot contribute,
    and why.
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
    updates: Mapping[str, UpdateMetadata] = field(default_factory=dict)
    dropped: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The one that the round makes."""
        return 0 if self.base is None else self.base.version + 1

    @property
    def awaited(self) -> tuple[str, ...]:
        """Called, neither in nor out: present, blinking or lost."""
        # Of a list: a tuple made of a generator is never taken from those that the interpreter keeps for reuse, only
        # put back there.
        return tuple([n for n in self.cohort if n not in self.updates and n not in self.dropped])


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregating:
    """The round has closed and its average is being made."""

    name: ClassVar[PhaseName] = "aggregating"
    collected: Collecting
    closed: float
    missing: Mapping[str, str]

    @property
    def round(self) -> int:
        return self.collected.round


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluating:
    """Nothing is left to do, or to decide, before the newest version has been evaluated."""

    name: ClassVar[PhaseName] = "evaluating"
    round: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """All versions were made, or the target accuracy was reached."""

    name: ClassVar[PhaseName] = "finished"
    at: float
    reason: Literal["rounds", "target-accuracy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The run cannot go on by itself. ``before``: where it was, to be taken up when the cause is mended."""

    name: ClassVar[PhaseName] = "failed"
    at: float
    reason: Literal["too-few-edges", "rounds-abandoned"]
    detail: str
    resume_phase: Selecting | Evaluating


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The operator ended the run; it can be taken up where it was: ``before``."""

    name: ClassVar[PhaseName] = "interrupted"
    at: float
    reason: str
    resume_phase: Selecting | Collecting | Aggregating | Evaluating


Phase = Selecting | Collecting | Aggregating | Evaluating | Finished | Failed | Stopped
PHASES: Final[tuple[type[Phase], ...]] = get_args(Phase)
"""In the order in which a run passes through them."""
FINAL_PHASE_TYPES: Final = (Finished, Failed, Stopped)
ROUND_PHASES: Final = (Selecting, Collecting, Aggregating, Evaluating)
"""The phases of one round; a summary has the seconds of each."""


def collected_round(phase: Phase) -> Collecting | None:
    """The round whose updates are held: an open one, or one that is being averaged; also where a run was stopped."""
    if isinstance(phase, Stopped):
        phase = phase.resume_phase
    if isinstance(phase, Aggregating):
        phase = phase.collected
    return phase if isinstance(phase, Collecting) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a round ended. ``seconds`` by phase; ``model`` is null where it was abandoned."""

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
    confusion: ConfusionCounts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedRound:
    """What is remembered of a closed round, to answer who comes late or has not heard the answer."""

    round: int
    cohort: frozenset[str]
    accepted: Mapping[str, str]
    reached_target: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingEvaluation:
    """A version that is being evaluated, by whom still, and what came in."""

    model: ModelReference
    split: Split
    requested_at: float
    deadline: float
    awaited: frozenset[str]
    results: tuple[Evaluated, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The whole state of a run. ``unsettled``: ended rounds whose line in the history is not written yet.

    ``incarnation``: how many times the run's aggregator was started.
    """

    settings: Settings
    phase: Phase
    incarnation: int = 1
    roster: Roster = field(default_factory=Roster)
    begun: bool = False
    model: ModelReference | None = None
    manifest: str | None = None
    consecutive_abandoned: int = 0
    closed_rounds: tuple[ClosedRound, ...] = ()
    pending_summaries: tuple[Summary, ...] = ()
    evaluations: tuple[PendingEvaluation, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    best_accuracy: float | None = None
    target_reached: bool = False

    @property
    def ended(self) -> bool:
        return isinstance(self.phase, FINAL_PHASE_TYPES)

    @property
    def version(self) -> int:
        """Versions committed so far; 0 with nothing but first weights, or not even those."""
        return 0 if self.model is None else self.model.version


def new_run(settings: Settings, model: ModelReference | None = None, manifest: str | None = None) -> Run:
    """The state before anything happened. ``model`` and ``manifest``: first weights that the user gave."""
    first = Selecting(round=0 if model is None else 1, since=0.0, not_before=0.0)
    return Run(settings=settings, phase=first, model=model, manifest=manifest)
