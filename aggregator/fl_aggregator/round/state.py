"""The state of a run: its phase, and what it remembers beside it.

Nothing here is ever changed in place. Times are
run time in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.events import ConfusionCounts, Evaluated, Similarity, StrategyReport
from fl_aggregator.round.pace import ResponseTimes
from fl_aggregator.round.persistent_map import PersistentMap
from fl_aggregator.round.phases import (
    FINAL_PHASE_TYPES,
    Failed,
    Order,
    Phase,
    Selecting,
)
from fl_aggregator.round.privacy import Releases, spent_by
from fl_aggregator.round.roster import Roster
from fl_shared.protocol.messages import (
    LOSS,
    Environment,
    MetricDeclaration,
    ModelReference,
    PrivacySpent,
    RejectionReason,
    Split,
    primary_of,
)
from fl_shared.tensors.encodings.float32 import FLOAT32

MAX_MISLED: Final = 2
"""Masked rounds that an edge may spoil before it is left out of the run."""
KEEP_LOCAL: Final = "--keep-local "
"""With this, an edge begins to say why it is unable if the setting does not fit the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonalScore:
    """The primary metric on an edge's holdout: of the last version, and of the model that the edge made of it."""

    before: float
    after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a round ended.

    ``model`` is null if it was abandoned. ``missing``: the edges that did not contribute, and why. ``seconds``: by
    phase. ``declared``: the metrics that the task declares. ``split``: on which the version was evaluated, null if it
    was not. ``first_served``: the first of the versions whose mean was evaluated, null if it was the version itself.
    ``similarity``: of the updates, null if they were not compared. ``strategy``: what it says of the version.
    ``edges``: by client, the primary metric of version ``edges_version`` on the edge's own holdout: of the round's
    version if edges were asked for their holdouts, else of its base, as the participants measured it before they
    trained. ``personal``: by client, of the last version with ``--personalize``. ``encoding``: of the updates' deltas.
    ``masked``: only their sum is known. ``privacy``: what the versions up to this one have told about an edge; null
    without differential privacy. ``secret``: who took part is not told (`secrecy.shown_summary`).
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
    strategy: StrategyReport | None = None
    edges: Mapping[str, float] = field(default_factory=dict)
    edges_version: int | None = None
    personal: Mapping[str, PersonalScore] = field(default_factory=dict)
    encoding: str = FLOAT32.name
    masked: bool = False
    privacy: PrivacySpent | None = None
    secret: bool = False


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
    """The newest update of an edge that is in a version: its round and its digest. ``examples``: of the first one."""

    round: int
    digest: str
    examples: int


PersonalMissing = Literal["deadline", "absent", "unmeasured"]
"""Why there is no score of an edge's own model: not reported in time, not present, or reported without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a model is worth on the ``examples`` that an edge holds out."""

    examples: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the served model (``before``) and a candidate (``after``) are worth on the same holdouts of ``edges``."""

    before: float
    after: float
    edges: int
    examples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a look has found. ``served``: by client, of the served model. ``compared``: of the best candidate so far.

    ``winner``: the candidate that takes the place of the served model; null if none is better.
    """

    served: Mapping[str, Score]
    compared: Comparison | None = None
    winner: ModelReference | None = None


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
    ``personal_missing``: how many of the ``--clients`` edges are not in it, by reason.
    ``response_times``: of the last rounds with ``--pace auto``, from which the next one follows; empty with others.
    ``environments``: the distinct ones of the edges, at most 256, in the order in which they registered.
    ``order``: of a region, the round that it is asked for and has not opened yet. ``misled``: by client, in how
    many masked rounds its shares were wrong. ``releases``: of a run with differential privacy, who was in which.
    ``revocations``: the number of the newest list of revoked kits, 0 before the first.
    ``paused``: why the operator has paused the run, null if he has not; ``pauses``: how often he has.
    ``looked``: of a look, null before the served model is measured. ``next_evaluation``: without ``evaluate_every``,
    the run time from which the next version is evaluated.
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
    personal_missing: Mapping[PersonalMissing, int] = field(default_factory=dict)
    response_times: tuple[ResponseTimes, ...] = ()
    environments: tuple[Environment, ...] = ()
    order: Order | None = None
    misled: Mapping[str, int] = field(default_factory=dict)
    releases: Releases = field(default_factory=Releases)
    revocations: int = 0
    paused: str | None = None
    pauses: int = 0
    looked: Looked | None = None
    next_evaluation: float = 0.0

    def misled_text(self, client: str) -> str | None:
        """Says why an edge is left out of a run whose updates are masked; null if it is not."""
        count = self.misled.get(client, 0)
        if count < MAX_MISLED:
            return None
        return f"its shares were wrong in {count} masked rounds"

    @property
    def privacy(self) -> PrivacySpent | None:
        """What the versions have told about an edge, at most; null without differential privacy."""
        plan = self.settings.privacy
        return None if plan is None else spent_by(plan, self.releases)

    @property
    def failed_by_user(self) -> bool:
        """Whether the run has failed for a mistake in its settings, which only edges could tell."""
        match self.phase:
            case Failed(reason="unknown-target" | "unbounded-metric"):
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
