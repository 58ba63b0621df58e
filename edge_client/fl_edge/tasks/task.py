"""The base class of tasks: a model, its data, and how to train, evaluate and predict. Only edges have tasks."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict

from fl_edge.errors import DataMissingError
from fl_edge.tasks.survey import Columns, Surveyed
from fl_shared.protocol.messages import Confusion, Partition, TrainingSettings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from fl_shared.tensors.manifest import Manifest

LOG: Final = logging.getLogger(__name__)

Array = Any
"""A ``torch.Tensor``, or an array of NumPy. Each task knows which of them it has."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """Examples as tensors, or as arrays of NumPy. Their first dimension is examples; classes are int64."""

    inputs: Array
    """(examples, …), as the model takes them."""
    labels: Array
    """(examples,) for classes, otherwise the targets: (examples, …)."""

    def __len__(self) -> int:
        return len(self.labels)

    def tensors(self, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
        """Returns inputs and labels as tensors on ``device``; without a copy if they are in its memory."""
        import torch

        return torch.as_tensor(self.inputs, device=device), torch.as_tensor(self.labels, device=device)


@dataclass(frozen=True, slots=True, eq=False)
class LocalData:
    """The partition of an edge: its training examples, and its holdout (``None`` if there is none)."""

    train: Examples
    """What the edge trains on. May be empty: then the edge is not selected."""
    holdout: Examples | None
    """What the edge evaluates on, and never trains on."""


@dataclass(frozen=True, slots=True)
class TrainingDefaults:
    """How a task is trained if the run's settings do not say it: the defaults of ``--epochs``, ``--lr`` and so on."""

    epochs: int = 10
    """Passes over the edge's training examples in a round."""
    batch_size: int = 32
    """Examples of a minibatch."""
    lr: float = 0.05
    """The learning rate."""
    momentum: float = 0.9
    """Of SGD, from 0 to below 1."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The result of training."""

    steps: int
    """Steps of the optimizer."""
    loss: float
    """Mean over the examples of the last epoch."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that a task measures, besides the loss."""

    name: str
    """Printable, at most 57 bytes."""
    higher_is_better: bool = True
    """Whether the best version has the greatest value; otherwise it has the least."""
    unit: str = ""
    """At most 16 bytes, such as ``kWh``. ``%``: the value is a fraction (0.25 is 25 %). Empty: no unit."""
    minimum: float | None = None
    """The least value that is possible; None: any."""
    maximum: float | None = None
    """The greatest value that is possible; None: any."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The result of an evaluation."""

    examples: int
    """How many were evaluated."""
    loss: float
    """Mean over the examples."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Values of metrics that the task declares (`Task.metrics`), by name.

    One that is left out or not finite is undefined for these examples.
    """
    confusion: Confusion | None = None
    """The confusion matrix of a classifier: see `fl_edge.tasks.classes.confusion_matrix`."""


@dataclass(frozen=True, slots=True)
class LoadContext:
    """Whose data to load."""

    client: str
    """The id of the edge."""
    partition: Partition
    """The part that the edge has in the run. `fl_edge.data.partition.split` divides examples by it."""
    data_dir: Path | None
    """The directory that ``--data`` names."""

    @property
    def part(self) -> int:
        """The number of the edge's part, from 0."""
        return self.partition.index

    @property
    def parts(self) -> int:
        """The number of parts."""
        return self.partition.count

    def warn_if_divided(self, path: Path, examples: int, kind: str) -> None:
        """Says once that the examples in ``path`` are divided, which surprises an edge that has its own.

        ``kind``: of files, in the plural. It says nothing without a client: then the edge only tries whether its data
        is there.
        """
        if self.client and self.parts > 1 and self.partition.scheme not in ("own", "natural"):
            _warn_once(path, examples, self.parts, self.partition.scheme, kind)


@lru_cache(maxsize=64)
def _warn_once(path: Path, examples: int, parts: int, scheme: str, kind: str) -> None:
    LOG.warning(
        "%s: its %d examples are divided among %d edges (--partition %s); "
        "if each edge has %s of its own, the run needs --partition own",
        *(path, examples, parts, scheme, kind),
    )


class TaskOptions(BaseModel):
    """The options of a task: a field each, with its default. They are the same on all edges of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _names(text: object) -> object:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""An option that is a list, separated by commas."""


class Task(ABC):
    """A task. To add one, subclass this and name the class in the entry-point group ``fl_mqtt.tasks``.

    A class that is not installed can be tried with ``--task package.module:Class``.
    """

    name: str
    defaults: ClassVar[TrainingDefaults] = TrainingDefaults()
    Options: ClassVar[type[TaskOptions]] = TaskOptions
    """The class of ``options``."""
    options: TaskOptions
    labels: tuple[str, ...] = ()
    """The names of the classes, in the order of their labels; empty if there are none."""
    metrics: tuple[Metric, ...] = ()
    """What `evaluate` measures, at most 32. By the first one, the primary metric, versions are compared; without any,
    by the loss."""

    def __init__(self, options: TaskOptions | None = None) -> None:
        self.options = self.Options() if options is None else options

    def prepare(self, data_dir: Path | None) -> None:  # noqa: B027  it may be left out
        """Prepares for the data in ``data_dir``, before anything else is asked.

        A task whose model, labels or metrics depend on its data learns them here. Raises ``DataMissingError``.
        """

    @abstractmethod
    def model(self, seed: int) -> nn.Module:
        """Returns a model with first weights that depend only on ``seed``.

        torch's global generator has been seeded from ``seed``; no other thread draws from it meanwhile.
        """

    @abstractmethod
    def load(self, context: LoadContext) -> LocalData:
        """Returns the data of ``context.partition``, which may have no examples: then the edge is not selected.

        Raises ``DataMissingError``, which says what to put where, and ``ValueError`` if the data cannot be divided
        so.
        """

    def load_test(self, data_dir: Path | None) -> Examples:  # noqa: ARG002  it may be left out
        """Returns the test split, which no partition contains. Raises ``DataMissingError`` if there is none.

        Versions are then evaluated on the holdouts of the edges alone.
        """
        raise DataMissingError("the task has no test split")

    @abstractmethod
    def train(
        self,
        model: nn.Module,
        data: LocalData,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        """Trains ``model`` in place on ``data.train`` (at least one example), on the model's device.

        All random numbers come from ``seed`` (torch's global generator has been seeded from it, too). Call
        ``cancelled`` at every step, and raise ``CancelledError`` when it returns true.
        """

    def finish(self, model: nn.Module, data: LocalData) -> None:  # noqa: B027  it may be left out
        """Prepares ``model``, trained on ``data``, for sharing, after its evaluation on the holdout.

        A task may set buffers to statistics of its own data here, which are averaged over the edges.
        """

    @abstractmethod
    def evaluate(self, model: nn.Module, examples: Examples) -> Scores:
        """Returns the scores of ``model`` on ``examples`` (at least one)."""

    @abstractmethod
    def predict(self, model: nn.Module, payload: bytes) -> Mapping[str, Any]:
        """Returns the answer to one request, which JSON can express. Raises ``PayloadError`` for an invalid request.

        Any names and values will do. Programs show ``label`` and ``probabilities`` (by label) as a class, ``value`` and
        ``unit`` as a number, ``values`` and ``unit`` as a series (`answers`).
        """

    def predictor(
        self,
        model: nn.Module,
        context: LoadContext | None,  # noqa: ARG002
    ) -> Callable[[bytes], Mapping[str, Any]]:
        """Returns the function that answers requests with ``model``: `predict`.

        ``context``: whose data the edge has that answers; None if it has none. A task whose answers depend on them
        reads them here, once for each version.
        """
        return partial(self.predict, model)

    def example_request(self) -> Any:
        """Returns a request in JSON as an example of what ``predict`` reads; None if a request cannot be in JSON."""
        return None

    def model_for(self, manifest: Manifest, seed: int) -> nn.Module:  # noqa: ARG002
        """Returns ``model(seed)`` for weights with ``manifest``, which a task without data may need to know."""
        return self.model(seed)

    def example_input(self) -> torch.Tensor | None:
        """Returns one input as a batch, with which the model is exported to ONNX; None if that is not offered."""
        return None

    def survey_columns(self) -> Columns:
        """Returns what a survey counts besides examples: by default the classes."""
        return Columns(self.labels)

    def survey(self, context: LoadContext) -> Surveyed:
        """Returns the examples of ``context.partition`` in the columns of `survey_columns`, as they were measured.

        Raises ``DataMissingError``, as `load`.
        """
        data = self.load(context).train
        return Surveyed(len(data), data.labels if self.labels else ())

    def shared(self, model: nn.Module) -> tuple[str, ...]:
        """Returns the names in ``model.state_dict()`` that are shared: those of floating-point arrays."""
        return tuple(
            name
            for name, value in model.state_dict().items()
            if hasattr(value, "is_floating_point") and value.is_floating_point()
        )
