"""What watchers read: the state of the run, its rounds and its edges."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fl_shared.protocol.kinds.base import (
    MAX_METRIC_NAME,
    MAX_METRICS,
    ClientId,
    Count,
    Fragment,
    Metrics,
    Number,
    PresenceState,
    Scoped,
    Seconds,
    Split,
    TaskName,
    Text,
    Timestamp,
)
from fl_shared.protocol.kinds.environment import MAX_ENVIRONMENTS, Environment
from fl_shared.protocol.kinds.masked import Members
from fl_shared.protocol.kinds.metric import DeclaredMetrics, MetricDeclaration
from fl_shared.protocol.kinds.privacy import PrivacyStatus
from fl_shared.protocol.kinds.round import MAX_OUTLIERS

MAX_REFUSED_NAMED: Final = 3
"""The most clients that a status names in ``refused``."""
Phase = Literal[
    "selecting", "collecting", "agreeing", "unmasking", "aggregating", "buffering", "evaluating", "finished", "failed",
    "interrupted",
]  # fmt: skip
COLLECTING_PHASES: Final[tuple[Phase, ...]] = ("collecting", "buffering")
"""The phases in which updates are awaited."""
MASKED_PHASES: Final[tuple[Phase, ...]] = ("agreeing", "unmasking")
"""The phases in which the members of a masked round sign what is summed, and unmask it."""
FINAL_PHASES: Final[tuple[Phase, ...]] = ("finished", "failed", "interrupted")
"""The phases that the last status of a run may have."""


class MissingClient(Fragment):
    """A selected client whose update has not arrived."""

    state: PresenceState
    seconds: Seconds
    """Seconds since the client was selected (if online) or was lost (if offline)."""


class Missing(Scoped):
    """The clients that a round still waits for, retained on ``fl/round/<n>/missing`` while it is open."""

    kind: Literal["missing"] = "missing"
    round: Count
    clients: dict[ClientId, MissingClient]


EdgeStateName = Literal["present", "offline", "selected", "training", "uploading", "in", "missing"]


class EdgeView(Fragment):
    """The state of one edge as the aggregator sees it. ``reason``: why it is missing, offline or not ready yet.

    The numbers describe its newest accepted update: ``examples`` and ``seconds`` of training, the ``bytes`` of the
    update, and the run's primary metric and the loss of the trained model on the edge's holdout. ``environment``: where
    it runs, an index into those of the message.
    """

    state: EdgeStateName
    reason: Text | None = None
    examples: Count | None = None
    seconds: Seconds | None = None
    bytes: Count | None = None
    primary: Number | None = None
    loss: Number | None = None
    environment: Count | None = None


class PersonalScore(Fragment):
    """The primary metric on an edge's holdout: of the run's last model, and of the model that the edge made of it."""

    before: Number
    after: Number


class Edges(Scoped):
    """Every edge of the roster, retained on ``fl/round/<n>/edges``; at most 2 MiB.

    It is published before and while the round is open, and once more when it has closed. ``left_out``: how many
    more edges there are, which did not fit into the largest packet that the broker accepts. ``environments``: the
    distinct ones of the run's edges, in the order in which they registered. ``personal``: what the edges' own models
    are worth (``--personalize``), as far as it is known.
    """

    kind: Literal["edges"] = "edges"
    round: Count
    phase: Phase
    edges: dict[ClientId, EdgeView]
    left_out: Count = 0
    environments: Annotated[tuple[Environment, ...], Field(max_length=MAX_ENVIRONMENTS, fail_fast=True)] = ()
    personal: dict[ClientId, PersonalScore] = Field(default={})


PRIVACY_COLUMNS: Final = ("epsilon", "clip", "noise")
"""The arrays of `HistoryColumns` that are empty without differential privacy."""
MAX_HISTORY: Final = 500
"""The most rows of `History`."""


class HistoryColumns(Fragment):
    """Arrays of equal length, with one entry for each round.

    ``version`` is null if the round was abandoned. ``metrics``: an array for each metric, with null where it was not
    measured. ``split``: on which a version was evaluated, null if it was not. ``seconds`` does not include the
    evaluation, which continues during the next round. ``epsilon``: what the versions so far have told about an edge, at
    most; ``clip``, ``noise``: see `RoundPrivacy`; empty without differential privacy, and null in a round
    without a version.
    """

    round: tuple[Count, ...] = ()
    version: tuple[Count | None, ...] = ()
    metrics: Annotated[
        dict[Annotated[str, StringConstraints(max_length=MAX_METRIC_NAME)], tuple[Number | None, ...]],
        Field(max_length=MAX_METRICS),
    ] = Field(default={})
    split: tuple[Split | None, ...] = ()
    seconds: tuple[Seconds, ...] = ()
    participants: tuple[Count, ...] = ()
    cohort: tuple[Count, ...] = ()
    bytes_up: tuple[Count, ...] = ()
    bytes_down: tuple[Count, ...] = ()
    epsilon: tuple[Number | None, ...] = ()
    clip: tuple[Number | None, ...] = ()
    noise: tuple[Number | None, ...] = ()

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        lengths = {name: len(getattr(self, name)) for name in type(self).model_fields if name != "metrics"}
        lengths |= {f"metrics.{name}": len(values) for name, values in self.metrics.items()}
        for name in PRIVACY_COLUMNS:
            if not lengths[name]:
                del lengths[name]
        if len(set(lengths.values())) > 1:
            raise ValueError(f"expected equally long arrays, got {lengths}")
        if lengths["round"] > MAX_HISTORY:
            raise ValueError(f"{lengths['round']} rows, expected at most {MAX_HISTORY}")
        return self


MAX_MAPPED: Final = 100
"""The most edges of a `SimilarityMap`."""


class SimilarityMap(Fragment):
    """How alike the updates of round ``round`` are.

    ``edges``: in the order of their groups; none if more than `MAX_MAPPED` were compared. ``groups``: how many edges
    each group has. ``cosines``: of all pairs (i, j) with i < j, row by row, as signed bytes, 100 × the cosine, in
    base64url. ``outliers``: the edges whose updates are unlike the others, with the reason.
    """

    round: Count
    edges: Annotated[tuple[ClientId, ...], Field(max_length=MAX_MAPPED, fail_fast=True)]
    groups: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(max_length=MAX_MAPPED, fail_fast=True)]
    cosines: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{0,6600}$")]
    outliers: Annotated[dict[ClientId, Text], Field(max_length=MAX_OUTLIERS)]

    @model_validator(mode="after")
    def _of_the_same_edges(self) -> Self:
        count = len(self.edges)
        pairs = count * (count - 1) // 2
        if len(set(self.edges)) < count or sum(self.groups) != count:
            raise ValueError(f"expected groups of {count} different edges, got {self.groups}")
        if len(self.cosines) != (4 * pairs + 2) // 3:
            raise ValueError(f"{len(self.cosines)} characters, expected those of {pairs} cosines")
        return self


class History(Scoped):
    """The closed rounds, for plots, retained on ``fl/history``. If there are many, only every n-th is given.

    ``rounds``: how many versions the run makes. ``started``: when the run began, before any resume. ``metrics``: those
    that the task declares, null while that is not known. ``similarity``: of the newest round whose updates were
    compared, null if none were.
    """

    kind: Literal["history"] = "history"
    task: TaskName
    rounds: Count
    started: Timestamp
    metrics: DeclaredMetrics | None = None
    columns: HistoryColumns
    similarity: SimilarityMap | None = None


class MaskedSums(Fragment):
    """What can be seen of the updates of a run that masks them: their sums.

    ``least``: the fewest updates in a sum. ``certified``: whether kits certify the edges' keys; without them, the
    aggregator is trusted to pass keys on honestly.
    """

    least: Members
    certified: bool


class Status(Scoped):
    """The state of the run, retained on ``fl/status``; at most 1 KiB.

    It is published when it changes, at most twice a second, and every 5 s. ``have`` and ``need`` count the ready edges
    before a round opens, and the accepted updates while it is open. ``metrics``: of the newest evaluated version
    (``version``), its primary metric and its loss; ``split``: on which they were measured. With ``--pace auto`` also
    `PACE_METRICS` of the open round.
    """

    kind: Literal["status"] = "status"
    written: Timestamp
    task: TaskName
    phase: Phase
    round: Count | None
    version: Count | None
    rounds: Count
    have: Count
    need: Count
    present: Count
    seconds_left: Seconds | None
    missing: Annotated[tuple[ClientId, ...], Field(max_length=10, fail_fast=True)]
    metrics: Metrics
    primary: MetricDeclaration | None = None
    split: Split | None = None
    paused: Annotated[str, StringConstraints(max_length=300)] | None = None
    """Why the run is paused (its deadlines wait as well); null if it is not paused."""
    pauses: Count = 0
    """How often the operator has paused the run; the number of the pause that lasts, if ``held``."""
    held: bool = False
    """Whether the operator has paused the run, so that it waits for a command."""
    first_version: Count | None = None
    """The mean of the versions from this one to ``version`` is evaluated and used for predictions; null: ``version``
    itself is."""
    attack: Annotated[str, StringConstraints(max_length=120)] | None = None
    """Who attacks the run and how; null unless it is a simulation with attackers."""
    serving: Annotated[str, StringConstraints(max_length=120)] | None = None
    """What is done with the served model, for people; null unless the run looks at one."""
    privacy: PrivacyStatus | None = None
    """What the versions have told about an edge, at most; null without differential privacy, and before the first."""
    masked: MaskedSums | None = None
    """What the aggregator can see of updates; null if it sees each one."""
    refused: Annotated[
        dict[Annotated[str, StringConstraints(max_length=64)], Count], Field(max_length=MAX_REFUSED_NAMED)
    ] = Field(default={})
    """The clients with the most refused messages in this incarnation, and how many (protocol, 8.6)."""
