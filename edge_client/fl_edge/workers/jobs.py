"""The jobs of a worker process, and their outcomes. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fl_shared.protocol.messages import (
    Confusion,
    MetricDeclaration,
    Partition,
    Split,
    TrainingRequest,
    UpdateMetrics,
)
from fl_shared.system.shared_memory import SharedBytes
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Manifest

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
    "failed",
]


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
class TrainJob:
    """Train from the model with the digest ``base``. If it is None (round 0), make the first weights instead.

    ``encoding``: of the result.
    """

    client: str
    task: str
    partition: Partition
    base: str | None
    settings: TrainingRequest
    round: int
    encoding: str


@dataclass(frozen=True, slots=True)
class EvaluateJob:
    """Evaluate the model ``digest`` on the test split, or on the holdout of the partition."""

    client: str
    task: str
    split: Split
    partition: Partition | None
    digest: str


@dataclass(frozen=True, slots=True)
class PredictJob:
    """Answer the prediction request ``payload`` with the model ``digest``; if it is empty, with an example of one.

    ``partition`` is that of ``client``, which answers; null if it has none.
    """

    task: str
    digest: str
    payload: bytes
    client: str = ""
    partition: Partition | None = None


# Jobs name models by their digests; a model is sent once, before the first job that needs it (`CacheModel`).
Job = LoadJob | TrainJob | EvaluateJob | PredictJob


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """The numbers of training and holdout examples (0 without a partition), and the manifest of the weights.

    ``labels``: the number of all these examples in each class, if the task names its classes. It never leaves the
    machine. ``declared``: the metrics that the task declares.
    """

    examples: int
    holdout_examples: int
    manifest: Manifest
    labels: dict[str, int]
    declared: tuple[MetricDeclaration, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """A trained update. ``delta``: local − base in ``encoding``; the first weights if there was no base.

    ``digest``: of an update with this section alone (protocol, 3.4). ``steps``: of the optimiser, 0 without a base.
    ``seconds``: of training and evaluation.
    """

    manifest: Manifest
    delta: SharedBytes
    digest: str
    examples: int
    steps: int
    seconds: float
    metrics: UpdateMetrics
    encoding: str = FLOAT32.name


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
    """The result of a job. ``seconds``: processor time of the worker's thread; 0 if it was not finished."""

    id: int
    job: Job
    outcome: JobOutcome
    seconds: float
