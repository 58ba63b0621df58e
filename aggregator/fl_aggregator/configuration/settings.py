"""The settings of a run, parsed once at its start and passed down frozen.

Each option of a run is a field of `Settings`. The command line, its help, ``run.json``, the options that
``--resume`` refuses, and ``docs/options.md`` are made from it.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from fl_aggregator.configuration.checks import check_bounds, check_mode, not_in_async
from fl_aggregator.configuration.fold_width import FoldBits, width_of
from fl_aggregator.configuration.looking import Look
from fl_aggregator.configuration.masking import MaskedOptions, check_masked
from fl_aggregator.configuration.option import Option
from fl_aggregator.configuration.pace import FIXED, PACE_METAVAR, Pace, parse_pace
from fl_aggregator.configuration.privacy import PrivacyOptions, check_private, noise_places
from fl_aggregator.configuration.regions import Region, Sums
from fl_aggregator.configuration.staleness import STALENESS_METAVAR, parse_staleness
from fl_aggregator.configuration.survey import Survey
from fl_aggregator.configuration.values import Target, parse_serve, parse_target, readable_by
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_shared.cli.headings import BROKER, DATA, EVALUATION, OUTPUT, PRIVACY, ROUNDS, RUN, SECURITY, TRAINING
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m
from fl_shared.protocol import partition_scheme, topics
from fl_shared.protocol.abilities import needed
from fl_shared.protocol.task_spec import KEEP_LOCAL, LOCAL_SEED, format_task
from fl_shared.system.invocation import aggregator_command
from fl_shared.tensors.encodings import registry as encodings
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.masked import Bits
from fl_shared.tensors.fixed_point import scale_bits_of

EXTRA_CLIENTS: Final = 10_000
"""Clients that may be known in addition to ``--clients``, by default. A flood of made-up names must fill
neither memory nor time: many operations look at the whole roster."""
BY_TASK: Final = "the task's"
SPECIFICATION: Final = "NAME[:FIELD=VALUE,…]"
PER_ROUND: Final = 10
"""Updates in a round by default, unless there are fewer clients."""

CONCURRENCY: Final = 20
"""Edges at work in an asynchronous run by default, unless there are fewer clients."""
STALENESS: Final = "polynomial:0.5"
MAX_DELTA: Final = 100.0
MAX_BUFFER: Final = 1e12
MAX_STALENESS: Final = 10

Mode = Literal["sync", "async"]
"""Whether a version is made of the updates of one round, or of those that come next, whatever they began from."""
Durability = Literal["process", "power", "memory"]
"""What an accepted update survives: the end of the process (page cache), a power failure (fsync), or
neither."""


Count = Annotated[int, Field(ge=1, le=1_000_000)]
OptionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
ArrayPattern = Annotated[str, StringConstraints(pattern=r"^[^,\s]{1,256}$")]
Specification = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
OptionValue = Annotated[str, StringConstraints(max_length=1000)]
Seconds = Annotated[float, Field(gt=0, le=1e8)]


def _usable_prefix(text: str) -> str:
    if not topics.valid_prefix(text):
        raise ValueError("expected topic levels without +, #, $, spaces, empty levels or too many slashes")
    return text


class Settings(MaskedOptions, PrivacyOptions):
    """A run's settings. Times are in seconds; ``holdout`` is a fraction."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # fmt: off
    task: Annotated[m.TaskName,
        Option(RUN, "Task to train: tabular, series, images, digits, or another that the edges have.")] = "digits"
    task_option: Annotated[dict[OptionName, OptionValue],
        Option(RUN, "An option of the task, for example target=price; may be given several times "
               f"({aggregator_command('tasks', 'NAME')} lists them).")] = Field(default={})
    clients: Annotated[Count, Option(RUN, "Number of training edges, and of partitions of the data.")] = 20
    rounds: Annotated[Count, Option(RUN, "Versions of the model to make.")] = 10
    seed: Annotated[int, Field(ge=0, lt=2**53), Option(RUN, "Seed of all random choices.")] = 0
    partition: Annotated[str, readable_by(partition_scheme.parse_scheme),
        Option(DATA, "Split of the data.", metavar="|".join(partition_scheme.SCHEMES))] = "iid"
    train_examples: Annotated[int | None, Field(ge=1, le=2**53),
        Option(DATA, "Use only this many examples of the data set.", default="all")] = None
    strategy: Annotated[Specification, Option(TRAINING, "How updates become the next model "
        f"({aggregator_command('strategies')} lists them).", metavar=SPECIFICATION)] = "fedavg"
    combine: Annotated[Specification | None, Option(TRAINING, "How updates are combined, instead of the strategy's.",
        default="the strategy's", metavar=SPECIFICATION)] = None
    server_optimizer: Annotated[Specification | None, Option(TRAINING,
        "How the combined change becomes a model, instead of the strategy's.",
        default="the strategy's", metavar=SPECIFICATION)] = None
    transform: Annotated[tuple[Specification, ...], Option(TRAINING,
        "Scale each update first, for example clip:norm=10; may be given several times.",
        metavar=SPECIFICATION)] = ()
    correct: Annotated[tuple[Specification, ...], Option(TRAINING,
        "What edges add to their gradients, for example prox:mu=0.1, instead of what the strategy says.",
        metavar=SPECIFICATION)] = ()
    clip_gradients: Annotated[float, Field(ge=0, le=1e12),
        Option(TRAINING, "Greatest L2 norm of a gradient on the edges; 0: any.")] = 0.0
    logit_adjustment: Annotated[float, Field(ge=0, le=100),
        Option(TRAINING, "How much an edge's own frequencies of the classes count in its loss; "
               "1 is usual, for edges with few classes each.")] = 0.0
    precision: Annotated[m.Precision, Option(TRAINING, "Arithmetic of training. bf16: products of bf16 numbers, for "
        "edges whose processor has them; weights, sums and updates stay float32.")] = "float32"
    keep_local: Annotated[tuple[ArrayPattern, ...], Option(TRAINING, "Arrays of the model that stay on each edge: "
        "batchnorm, or a glob of names such as fc2.*; may be given several times.", metavar="batchnorm|GLOB")] = ()
    personalize: Annotated[int, Field(ge=0, le=1_000_000), Option(TRAINING, "Epochs that each edge trains from "
        "the last version, for a model of its own; 0: none.", metavar="EPOCHS")] = 0
    encoding: Annotated[str, readable_by(encodings.parse),
        AfterValidator(lambda text: encodings.parse(text).name),
        Option(TRAINING, "How updates are sent: f32 exactly, shuffle-deflate exactly in fewer "
        "bytes, bf16 and q8 (8 bits) rounded, topk:RATIO only the largest changes.",
        metavar="f32|shuffle-deflate|bf16|q8|topk:RATIO")] = FLOAT32.name
    model_encoding: Annotated[encodings.ModelEncoding, Option(TRAINING, "How models are published: f32 exactly, bf16 "
        "rounded. The run's own model is exact in both cases.")] = FLOAT32.name
    epochs: Annotated[int | None, Field(ge=1, le=1_000_000),
        Option(TRAINING, "Local epochs per round.", default=BY_TASK)] = None
    batch_size: Annotated[int | None, Field(ge=1, le=1_000_000),
        Option(TRAINING, "Examples per batch on the edges.", default=BY_TASK)] = None
    lr: Annotated[float | None, Field(gt=0, le=1e6),
        Option(TRAINING, "Learning rate of the edges' SGD.", default=BY_TASK)] = None
    lr_decay: Annotated[float, Field(gt=0, le=1),
        Option(TRAINING, "Multiply the learning rate by this after each version.")] = 1.0
    momentum: Annotated[float | None, Field(ge=0, lt=1),
        Option(TRAINING, "Momentum of the edges' SGD.", default=BY_TASK)] = None
    per_round: Annotated[Count, Option(ROUNDS, "Updates to collect in each round.",
        default=f"{PER_ROUND}, or --clients if that is less")] = PER_ROUND
    over_select: Annotated[int, Field(ge=0, le=1_000_000),
        Option(ROUNDS, "Extra edges to select beyond --per-round.")] = 0
    edges_per_round: Annotated[Count | None, Option(ROUNDS, "Maximum number of edges whose updates are "
        "in a round, those behind regional aggregators included.", default="--per-round + --over-select")] = None
    quorum: Annotated[int | None, Field(ge=1),
        Option(ROUNDS, "Minimum number of updates in a round.", default="half of --per-round")] = None
    fold_bits: Annotated[FoldBits, Option(ROUNDS, "Bits of each integer in the exact sum of a round; fewer leave it "
        "fewer binary places. auto: 64, or with --masked the fewest that leave it 20, or with --dp as many as the "
        "noise needs.")] = "auto"
    mode: Annotated[Mode, Option(ROUNDS, "Whether edges train together, in rounds, or each at its own pace "
        "(async: FedBuff).")] = "sync"
    buffer: Annotated[Count | None, Option(ROUNDS, "Updates in each version of an asynchronous run.",
        default="half of --concurrency")] = None
    concurrency: Annotated[Count | None, Option(ROUNDS, "Edges that train at the same time in an asynchronous run.",
        default=f"{CONCURRENCY}, or --clients if that is less")] = None
    staleness: Annotated[Annotated[str, readable_by(parse_staleness)] | None,
        Option(ROUNDS, "How much an update counts in an asynchronous run whose base is "
        "several versions old.", default=STALENESS, metavar=STALENESS_METAVAR)] = None
    max_staleness: Annotated[int | None, Field(ge=0, le=1000),
        Option(ROUNDS, "Versions that may have been made since the base of an update in an asynchronous run.",
               default=str(MAX_STALENESS))] = None
    deadline: Annotated[Seconds, Option(ROUNDS, "Maximum duration of a round, or of one edge's training in an "
        "asynchronous run, in seconds.")] = 600.0
    pace: Annotated[Specification, readable_by(parse_pace),
        Option(ROUNDS, "Whether rounds keep to --deadline and --over-select, or begin with "
        "them and follow what the edges take (auto).", metavar=PACE_METAVAR)] = FIXED
    grace: Annotated[float, Field(ge=0, le=1e6), Option(ROUNDS, "Seconds that a lost edge has to return.")] = 5.0
    wait: Annotated[Seconds, Option(ROUNDS, "Seconds to wait for enough edges.")] = 600.0
    holdout: Annotated[float, Field(ge=0, le=0.9),
        Option(EVALUATION, "Fraction of its data that an edge only evaluates on.")] = 0.2
    evaluate_every: Annotated[int | None, Field(ge=1),
        Option(EVALUATION, "Evaluate every N versions (always the last).", metavar="N",
        default="1; in an asynchronous run, one version in 5 seconds")] = None
    target: Annotated[Annotated[str, readable_by(parse_target)] | None, Option(EVALUATION,
        "Stop when a metric of the task, or the loss, is as good as this: accuracy=0.95, loss=0.2. "
        "With --holdout 0, only edges with --role evaluate measure it.", metavar="METRIC=VALUE")] = None
    similarity: Annotated[int, Field(ge=0, le=1_000_000),
        Option(EVALUATION, "Compare the edges' updates every N versions: who is unlike the others. 0: never.",
               metavar="N")] = 0
    serve: Annotated[str, readable_by(parse_serve),
        Option(EVALUATION, "What edges evaluate and predict with: the newest version, or the mean of "
        "the last K.", metavar="newest|average:K")] = "newest"
    prefix: Annotated[str, AfterValidator(_usable_prefix)] = "fl"
    # Larger packets are slower in the broker and in paho, and the broker keeps a copy for each subscriber.
    chunk: Annotated[int, Field(ge=1024, le=2**24), Option(BROKER, "Chunk size of models, in bytes.")] = 2**20
    durability: Annotated[Durability, Option(OUTPUT,
        "What an accepted update survives: a crash of the process, a power failure, or neither.")] = "process"
    require_sealed: Annotated[bool,
        Option(SECURITY, "Reject unsealed messages from edges (see fl-edge --seal).", at_resume=True)] = False
    max_examples: Annotated[int, Field(ge=1, le=2**40),
        Option(SECURITY, "Reject an update that reports more examples.")] = 1_000_000
    max_delta: Annotated[float, Field(gt=0, le=1e12),
        Option(SECURITY, "Reject an update that changes a parameter of the model by more.")] = MAX_DELTA
    max_buffer: Annotated[float, Field(gt=0, le=1e30),
        Option(SECURITY, "Reject an update that changes a buffer (a running mean or variance) by more.")] = MAX_BUFFER
    max_clients: Annotated[int | None, Field(ge=1, le=2_000_000),
        Option(SECURITY, "Maximum number of known edges, in all roles; idle ones are forgotten to make room.",
               default=f"{EXTRA_CLIENTS:,} beyond --clients")] = None
    # fmt: on
    # Not options: what is known once the run begins.
    sums: Sums = Sums()
    region: Region | None = None
    survey: Survey | None = None
    look: Look | None = None
    privacy: PrivacyPlan | None = None
    """Of a private run; null before it is resolved."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Fills in what follows from other settings. In an asynchronous run, ``per_round`` is the ``buffer``."""
        if not isinstance(values, dict) or not isinstance(clients := values.get("clients", 20), int):
            return values
        if values.get("masked") and values.get("max_buffer", MAX_BUFFER) == MAX_BUFFER:
            values = {**values, "max_buffer": values.get("max_delta", MAX_DELTA)}
        if values.get("mode") != "async":
            return {"per_round": min(PER_ROUND, clients), "evaluate_every": 1, **values}
        filled = {
            "concurrency": min(CONCURRENCY, clients),
            "staleness": STALENESS,
            "max_staleness": MAX_STALENESS,
        }
        filled |= {name: value for name, value in values.items() if value is not None}
        concurrency, per_round = filled["concurrency"], filled.get("per_round")
        if isinstance(concurrency, int):
            filled.setdefault("buffer", (concurrency + 1) // 2)
        if per_round not in (None, filled.get("buffer")):
            raise ValueError(not_in_async("per_round"))
        return {**filled, "per_round": filled.get("buffer")}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        check_mode(self)
        check_private(self)
        check_bounds(self)
        check_masked(self)
        return self

    @property
    def abilities(self) -> tuple[str, ...]:
        """What edges that train must be able to do. A strategy's own correction must be in ``correct``."""
        correction = self.correct[0].partition(":")[0] if self.correct else None
        return needed(
            correction,
            self.clip_gradients,
            self.logit_adjustment,
            bf16=self.precision == "bf16",
            tickets=self.mode == "async",
        )

    @property
    def task_spec(self) -> str:
        """The task with its options and the run's, as messages name it."""
        of_run = {KEEP_LOCAL: self.local_patterns, LOCAL_SEED: str(self.seed)} if self.keep_local else {}
        surveyed = {} if self.survey is None else self.survey.terms.members
        return format_task(self.task, {**self.task_option, **of_run, **surveyed})

    @property
    def local_patterns(self) -> str:
        """What stays on the edges, as messages and files name it; empty if nothing does."""
        return ",".join(self.keep_local)

    @property
    def edges_keep_state(self) -> bool:
        """Whether edges keep something of their own, which counts with the update that it came with."""
        return bool(self.correct or self.keep_local or encodings.get(self.encoding).feedback)

    def needed_encodings(self, *, trains: bool) -> tuple[str, ...]:
        """Returns the encodings that an edge must have, without parameters. Every edge reads float32."""
        of_models = () if self.model_encoding == FLOAT32.name else (self.model_encoding,)
        of_updates = (FLOAT32.name, encodings.kind_of(self.encoding))  # of initial weights, and of all others
        return tuple(dict.fromkeys((*(of_updates if trains else ()), *of_models)))

    @property
    def parsed_target(self) -> Target | None:
        """The target as a metric and a value; null if there is none."""
        return None if self.target is None else parse_target(self.target)

    @property
    def parsed_pace(self) -> Pace | None:
        """How deadlines and over-selection follow from earlier rounds; null if they are fixed."""
        return parse_pace(self.pace)

    @property
    def versions_served(self) -> int:
        """Of how many versions the mean is served, at most; 1: the newest version itself is served."""
        return parse_serve(self.serve)

    def first_served(self, version: int) -> int | None:
        """Returns the first of the versions whose mean is served when ``version`` is the newest.

        Null if it is served itself: also if there is one version only. Initial weights (version 0) are in no mean.
        """
        first = max(1, version - self.versions_served + 1)
        return first if first < version else None

    @property
    def effective_quorum(self) -> int:
        """The smallest number of updates with which a round may close."""
        if self.mode == "async":
            return self.per_round
        return math.ceil(self.per_round / 2) if self.quorum is None else self.quorum

    @property
    def roster_limit(self) -> int:
        """The largest number of clients on the roster, in all roles."""
        return self.clients + EXTRA_CLIENTS if self.max_clients is None else self.max_clients

    @property
    def expected_edges(self) -> int:
        """How many training edges the first round waits for."""
        return self.clients if self.region is None else self.region.edges

    @property
    def slots(self) -> int:
        """The most edges whose updates are in a round's sum."""
        if self.has_secret_cohorts:
            return self.clients
        return self.per_round + self.over_select if self.edges_per_round is None else self.edges_per_round

    @property
    def scale_bits(self) -> int:
        """The binary places of the exact fold: bits − 2 − ⌈log2(max_examples × max_delta × slots)⌉.

        In a private run they follow from the clip and its noise.
        """
        if self.privacy is not None:
            return noise_places(self, self.fold_width)
        return scale_bits_of(self.max_examples, self.max_delta, self.slots, self.fold_width)

    @property
    def fold_width(self) -> Bits:
        """The bits of the exact fold."""
        return width_of(self)

    @property
    def has_secret_cohorts(self) -> bool:
        """Whether nobody is told who takes part in a round but who does."""
        return self.dp is not None and self.dp_against == "models"

    @property
    def hides_edges(self) -> bool:
        """Whether edges say nothing of their own data: only sums of it, masked or with noise, are seen."""
        return self.masked or self.dp is not None

    def sealing_required(self, *, certified: bool) -> bool:
        """Whether unsealed messages from edges are rejected; ``certified``: the aggregator has a kit.

        What masks or noise are to hide must not be read on its way.
        """
        return self.require_sealed or (certified and self.hides_edges)

    @property
    def fold_settings(self) -> m.FoldSettings:
        """The caps and the scale bits, as ``selected`` announces them."""
        return m.FoldSettings(
            max_examples=self.max_examples,
            max_delta=self.max_delta,
            max_buffer=self.max_buffer,
            scale_bits=self.scale_bits,
            bits=self.fold_width,
        )

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the settings that decide what is learnt: all but those of broker, output and security.

        Those of privacy count in private runs only.
        """
        headings = (BROKER, OUTPUT, SECURITY, *(() if self.dp else (PRIVACY,)))
        others = {name for name, o in options_of_run().items() if o.heading in headings}
        values = self.model_dump(
            mode="json",
            exclude={"prefix", "sums", "region", "survey", "look", "privacy", "dp_ledger", *others},
        )
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def training_request(self, version: int) -> m.TrainingRequest:
        """Returns how the round that starts from ``version`` trains."""
        return m.TrainingRequest(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            momentum=self.momentum,
            lr_factor=self.lr_decay**version,
            clip_gradients=self.clip_gradients,
            logit_adjustment=self.logit_adjustment,
            precision=self.precision,
            seed=self.seed,
        )

    def personal_training(self, version: int) -> m.TrainingRequest:
        """Returns how edges make models of their own from ``version``."""
        return self.training_request(version).model_copy(update={"epochs": self.personalize})

    def partition_at(self, index: int) -> m.Partition:
        """Returns partition ``index`` as an edge is told about it."""
        return m.Partition(
            index=index,
            count=self.clients,
            scheme=self.partition,
            seed=self.seed,
            holdout=self.holdout,
            examples=self.train_examples,
        )


_NAMES: Final = {
    "task": "expected the name of a task, such as digits, or package.module:Class",
    "task_option": "expected the name of an option: small letters, digits and _",
    "keep_local": "expected batchnorm, or a glob of at most 256 characters without commas and spaces",
}
"""What is said instead of the pattern that a name does not match."""


def options_of_run() -> dict[str, Option]:
    """Returns the options of a run by the name of their setting."""
    return {
        name: option
        for name, field in Settings.model_fields.items()
        for option in field.metadata
        if isinstance(option, Option)
    }


def parse_settings(**values: object) -> Settings:
    """Returns ``Settings`` from the values of the command line; null stands for the default.

    Raises ``UserError`` that names the option and what was expected.
    """
    try:
        return Settings.model_validate({name: v for name, v in values.items() if v is not None})
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        # What follows from a wrong value is wrong as well: nobody has given that.
        given = (one for one in mistakes if one["loc"] and values.get(str(one["loc"][0])) is not None)
        first = next(given, mistakes[0])
        message = str(first["msg"]).removeprefix("Value error, ")
        if not first["loc"]:  # the options contradict each other; the message names them
            name, _, rest = message.partition(": ")
            raise UserError(f"--{name.replace('_', '-')}: {rest}") from None
        option = "--" + str(first["loc"][0]).replace("_", "-")
        if first["type"] == "string_pattern_mismatch":
            message = _NAMES[str(first["loc"][0])]
        if message[1:2].islower():
            message = message[0].lower() + message[1:]
        raise UserError(f"{option} {first['input']!r}: {message}") from None
