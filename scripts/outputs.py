"""What the commands print with ``--json``, as types: ``docs/schema/output`` is made of them, and tests check them.

Members of messages are the messages' own models.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic does not take typing's before Python 3.12

from fl_aggregator.privacy.plan import PrivacyPlan
from fl_aggregator.tools.doctor.findings import Verdict
from fl_aggregator.tools.survey.noisy import NoisyResult
from fl_aggregator.tools.survey.result import Result
from fl_shared.protocol import messages as m

exact = with_config(ConfigDict(extra="forbid"))
"""Other members than these are a mistake."""
MetricOverEdges = Annotated[
    float | None, Field(description="Of the primary metric over the edges' holdouts; null: not measured.")
]


@exact
class Finding(TypedDict):
    """What ``doctor`` found in one of its checks; ``measured`` has numbers in seconds and bytes."""

    name: str
    verdict: Verdict
    detail: str
    effect: str
    remedy: str
    measured: dict[str, Any]


@exact
class Examination(TypedDict):
    """What ``doctor`` found out about a broker. ``can_carry_a_run``: null if an essential check could not run."""

    broker: str
    prefix: str
    can_carry_a_run: bool | None
    verdict: str
    findings: list[Finding]


@exact
class EndedRound(TypedDict):
    """A round that has ended. ``version``: null if it was abandoned, for the ``reason``.

    ``seconds``: without the evaluation.
    """

    round: int
    version: int | None
    metrics: dict[str, float]
    split: m.Split | None
    seconds: float
    participants: int
    cohort: int
    bytes_up: int
    bytes_down: int
    epsilon: float | None
    clip: float | None
    noise: float | None
    primary: m.MetricDeclaration
    reason: str | None
    missing: dict[str, str]
    privacy: m.PrivacySpent | None
    mean: MetricOverEdges
    p10: MetricOverEdges
    worst: MetricOverEdges
    worst_edges: dict[str, float]


@exact
class Sight(TypedDict):
    """A run as its retained messages show it.

    ``age``: seconds since the last status. ``edges``: how many are in each state. All members after ``status`` are
    missing if there is no run. Those after ``edges`` are printed by ``status``, and in the last line of ``watch``.
    """

    aggregator: Literal["online", "offline"]
    alive: bool
    age: float | None
    status: m.Status | None
    last: NotRequired[EndedRound | None]
    time_left: NotRequired[float | None]
    edges: NotRequired[dict[m.EdgeStateName, int] | None]
    rounds: NotRequired[list[EndedRound]]
    history: NotRequired[m.HistoryColumns]
    every_edge: NotRequired[dict[m.ClientId, m.EdgeView] | None]
    environments: NotRequired[list[m.Environment] | None]


@exact
class SightLine(Sight):
    """A line of ``watch`` about the run. ``broker``: ``connected``, or why it is not."""

    broker: str


@exact
class RoundLine(TypedDict):
    """A line of ``watch`` about a round that has ended."""

    round: EndedRound


@exact
class LogEntry(TypedDict):
    """A line of ``logs``: one of the edge's log. ``time``: in UTC."""

    time: str
    level: m.LogLevel
    text: str


@exact
class LogGap(TypedDict):
    """A line of ``logs``: how many lines of the log are not shown here. At least one of the two is there.

    ``left_out``: too many in a short time. ``withheld``: they may say something of the edge's data.
    """

    left_out: NotRequired[int]
    withheld: NotRequired[int]


@exact
class TaskOption(TypedDict):
    """An option of a task. ``default``: null if it is required."""

    name: str
    required: bool
    default: Any
    help: str


@exact
class TaskDescription(TypedDict):
    """A task. ``defaults``: how it is trained unless the run says otherwise; empty if it cannot be loaded here."""

    name: str
    summary: str
    options: list[TaskOption]
    defaults: dict[str, float]


@with_config(ConfigDict(extra="allow"))
class PartField(TypedDict):
    """The JSON Schema of a field of a part, and these members."""

    required: bool
    description: str


@exact
class Part(TypedDict):
    """A part of strategies."""

    description: str
    fields: dict[str, PartField]


Strategy = TypedDict(  # its members are named as options are
    "Strategy",
    {"summary": str, "paper": str, "combine": str, "server-optimizer": str, "correct": NotRequired[str]},
)
PartKind = Literal["combine", "server-optimizer", "transform", "correct"]
Strategies = dict[Literal["strategy"] | PartKind, dict[str, Strategy | Part]]


@exact
class Way(TypedDict):
    """A way to be private; ``missing`` says why its noise is not known. Lengths are null without the model's size."""

    against: Literal["wire", "models"]
    noise: float | None
    effective_noise: float | None
    noise_per_update: float | None
    noise_per_run: float | None
    learns: Literal["nothing", "little", "something"] | None
    nothing_from: int | None
    deviation: float | None
    missing: str | None


@exact
class Plans(TypedDict):
    """The ways to be private beside each other, by name."""

    clients: int
    per_round: int
    rounds: int
    epsilon: float
    delta: float
    apart: int
    times: int
    shared_parameters: int | None
    ways: dict[str, Way]


@exact
class Release(TypedDict):
    """A sum of updates that was seen. ``round``, ``clip``: null if the journal was compacted since."""

    release: int
    round: int | None
    version: int | None
    clip: float | None
    noise: float
    contributors: int


@exact
class Charged(TypedDict):
    """What the releases that an edge is in have told about it."""

    releases: list[int]
    sensitivity: float
    mu: float
    epsilon: float


@exact
class Spent(TypedDict):
    """What a private run has told. ``edges``: empty if who took part is secret."""

    run: str
    task: str
    ended: str | None
    privacy: m.PrivacySpent
    earlier_epsilon: float
    planned_epsilon: float
    plan: PrivacyPlan
    releases: list[Release]
    edges: dict[m.ClientId, Charged]


@exact
class Personal(TypedDict):
    """The mean of the primary metric on the edges' holdouts before and after personalization, and by edge."""

    before: float
    after: float
    edges: m.PersonalScore


@exact
class Simulated(TypedDict):
    """A simulated run. ``rounds``: versions made. ``refused``: numbers of messages by edge and reason.

    ``mean`` to ``worst_edges``: of the last round. ``clock`` and what follows it: in virtual time only.
    """

    run: m.RunId
    rounds: int
    metrics: dict[str, float]
    primary: str
    split: m.Split | None
    mean: NotRequired[MetricOverEdges]
    p10: NotRequired[MetricOverEdges]
    worst: NotRequired[MetricOverEdges]
    worst_edges: NotRequired[dict[str, float]]
    personal: Personal | None
    model_sha256: str | None
    seconds: float
    clock: NotRequired[Literal["virtual"]]
    virtual_seconds: NotRequired[float]
    real_seconds: NotRequired[float]
    attack: str | None
    masked: m.MaskedSums | None
    privacy: m.PrivacySpent | None
    refused: dict[str, dict[str, int]]
    run_dir: str


@exact
class SweptRun(TypedDict):
    """A run of a sweep. ``metrics``: of its last round."""

    name: str
    setting: dict[str, str]
    seed: int
    finished: bool
    metrics: dict[str, float]


@exact
class Swept(TypedDict):
    """A sweep (``--sweep``, ``--seeds``). ``failed``: why, by name of the run."""

    sweep_dir: str
    failed: dict[str, str]
    runs: list[SweptRun]


OUTPUTS: Final[dict[str, Any]] = {
    "fl-aggregator doctor": Examination,
    "fl-aggregator predict": m.Prediction,
    "fl-aggregator privacy plan": Plans,
    "fl-aggregator privacy spent": Spent,
    "fl-aggregator simulate": Simulated | Swept,
    "fl-aggregator status": Sight,
    "fl-aggregator strategies": Strategies,
    "fl-aggregator survey": Result | NoisyResult,
    "fl-aggregator tasks": TaskDescription | list[TaskDescription],
    "fl-aggregator watch": RoundLine | SightLine,
    "fl-aggregator logs": LogEntry | LogGap,
}
"""By command, the type of what it prints; of ``watch`` and ``logs``, that of each line."""
