"""The jobs of a worker process, and their outcomes. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from fl_edge.session.privacy import Charge
from fl_shared.masking.shares import shares_manifest
from fl_shared.masking.tallies import TALLIES_MANIFEST, TALLY_BITS
from fl_shared.protocol.messages import (
    Confusion,
    Correction,
    MetricDeclaration,
    Partition,
    Selected,
    Split,
    TrainingRequest,
    UpdateMetrics,
)
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.masked import MASKED, RAW
from fl_shared.tensors.manifest import Manifest
from fl_shared.tensors.sections import DELTA, SHARES, TALLIES, ModelSection, parts_of

FailureKind = Literal[
    "cancelled",
    "data-missing",
    "data-corrupt",
    "data-mismatch",
    "other-model",
    "bad-payload",
    "unknown-task",
    "task-options",
    "unusable-model",
    "no-worker",
    "unmaskable",
    "budget-spent",
    "failed",
]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors by name, one after the other in ``memory``. ``sizes``: bytes of each, in the order of the names."""

    sizes: dict[str, int]
    memory: SharedBytes

    @classmethod
    def of(cls, data: Mapping[str, bytes | memoryview]) -> Self:
        """Copies encoded vectors, in the order of their names."""
        names = sorted(data)
        memory = SharedBytes.copy_of(b"".join(data[name] for name in names))
        return cls({name: len(data[name]) for name in names}, memory)

    def parts(self) -> dict[str, memoryview]:
        """Returns a view of each vector's bytes."""
        return parts_of(self.memory.view, self.sizes)


@dataclass(frozen=True, slots=True)
class LoadJob:
    """Summarize the partition of ``client``; if it is None, only the task.

    ``run_weights``: find out first how the weights of the task's model differ from these. ``test``: load the test split
    as well.
    """

    client: str
    task: str
    partition: Partition | None
    run_weights: Manifest | None = None
    test: bool = False


@dataclass(frozen=True, slots=True)
class Masking:
    """Mask the update for the round of ``selected``. ``mask``, ``agree``: the edge's private keys of the run.

    ``enrolment``: the key that must have certified the keys of all members; null without a kit.
    """

    selected: Selected
    mask: bytes = field(repr=False)
    agree: bytes = field(repr=False)
    enrolment: bytes | None = None


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Train from the model with the digest ``base``. If it is None (round 0), make the first weights instead.

    ``encoding``: of the delta. ``companions``: the digests of the vectors that the aggregator publishes for the
    ``correction``, by name; ``own``: the vectors that the edge has kept, for it and as its local part, as float32.
    ``personal``: what the edge keeps of it is a model of its own. ``masking``: null if the update is not masked.
    ``spent``: what the edge has been charged before (`fl_edge.session.privacy`).
    """

    client: str
    task: str
    partition: Partition
    base: str | None
    settings: TrainingRequest
    round: int
    encoding: str
    correction: Correction | None = None
    companions: dict[str, str] = field(default_factory=dict)
    own: Vectors | None = None
    personal: bool = False
    masking: Masking | None = None
    spent: tuple[Charge, ...] = ()


@dataclass(frozen=True, slots=True)
class EvaluateJob:
    """Evaluate the model ``digest`` on the test split, or on the holdout of the partition.

    ``local``: the digest of the edge's local part; null if it has none.
    """

    client: str
    task: str
    split: Split
    partition: Partition | None
    digest: str
    local: str | None = None


@dataclass(frozen=True, slots=True)
class PredictJob:
    """Answer the prediction request ``payload`` with the model ``digest``; if it is empty, with an example of one.

    ``partition`` is that of ``client``, which answers, and ``local`` the digest of its local part; null if it has none.
    """

    task: str
    digest: str
    payload: bytes
    client: str = ""
    partition: Partition | None = None
    local: str | None = None


# Jobs name models by their digests; a model is sent once, before the first job that needs it (`CacheModel`).
Job = LoadJob | TrainJob | EvaluateJob | PredictJob


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """The numbers of training and holdout examples (0 without a partition), and the manifest of the weights.

    ``labels``: the number of all these examples in each class, if the task names its classes. It never leaves the
    machine. ``declared``: the metrics that the task declares. ``abilities``: what its training can do besides plain
    SGD. ``local``: the names of the arrays of the model that stay on the edge.
    """

    examples: int
    holdout_examples: int
    manifest: Manifest
    labels: dict[str, int]
    declared: tuple[MetricDeclaration, ...] = ()
    abilities: list[str] = field(default_factory=list)
    local: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Masked:
    """What a masked update has besides its delta. ``plan`` and ``body``: digests, hex."""

    plan: str
    body: str
    tallies: bytes
    shares: bytes = field(repr=False)

    def sections(self) -> tuple[ModelSection, ModelSection]:
        """Returns its sections, in the order of their names."""
        return (
            ModelSection(SHARES, shares_manifest(len(self.shares)), self.shares, RAW.name),
            ModelSection(TALLIES, TALLIES_MANIFEST, self.tallies, MASKED[TALLY_BITS].name),
        )


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """A trained update. ``delta``: local − base in ``encoding``; the first weights if there was no base.

    ``sections``: what the correction adds to the update; ``own``: what the edge keeps; both as float32. ``digest``: of
    the update (protocol, 3.4). ``steps``: of the optimiser, 0 without a base. ``seconds``: of training and evaluation.
    ``masked``: null if the update is not masked; else all numbers of it are in there. ``charges``: what the edge must
    count before it sends the update. ``epsilon``: of single examples, with all that was ``spent``; null if they are not
    hidden.
    """

    manifest: Manifest
    delta: SharedBytes
    digest: str
    examples: int
    steps: int
    seconds: float
    metrics: UpdateMetrics
    encoding: str = FLOAT32.name
    sections: Vectors | None = None
    own: Vectors | None = None
    masked: Masked | None = None
    charges: tuple[Charge, ...] = ()
    epsilon: float | None = None

    def update_sections(self) -> tuple[ModelSection, ...]:
        """Returns the sections of the update, in the order of their names."""
        found = sections_of(self.manifest, self.encoding, self.delta, self.sections)
        return found if self.masked is None else (*found, *self.masked.sections())


def sections_of(
    manifest: Manifest, encoding: str, delta: SharedBytes, others: Vectors | None
) -> tuple[ModelSection, ...]:
    """Returns the sections of an update, in the order of their names. ``encoding``: of the delta."""
    data = {DELTA: delta.view, **({} if others is None else others.parts())}
    return tuple(
        ModelSection(name, manifest, data[name], encoding if name == DELTA else FLOAT32.name)
        for name in sorted(data)
    )


@dataclass(frozen=True, slots=True)
class EvaluateOutcome:
    """Scores on a split. ``loss``: mean over the examples. ``task_metrics``: in the order of ``declared``."""

    examples: int
    loss: float
    task_metrics: dict[str, float]
    confusion: Confusion | None = None
    declared: tuple[MetricDeclaration, ...] = ()


@dataclass(frozen=True, slots=True)
class PredictOutcome:
    """The answer to a request, which JSON can express."""

    answer: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExampleOutcome:
    """An example of a request, which JSON can express, or None; for an empty request."""

    example: Any


@dataclass(frozen=True, slots=True)
class FailureOutcome:
    """A job that failed or was cancelled. ``message`` is for people, ``trace`` the traceback of an unexpected error."""

    kind: FailureKind
    message: str
    trace: str = ""


JobOutcome = LoadOutcome | TrainOutcome | EvaluateOutcome | PredictOutcome | ExampleOutcome | FailureOutcome


@dataclass(frozen=True, slots=True)
class JobResult:
    """The result of a job. ``seconds``: processor time of the worker's thread.

    If its worker died: the time since it began, 0 if it had not.
    """

    id: int
    job: Job
    outcome: JobOutcome
    seconds: float
