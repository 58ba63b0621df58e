"""What a task is: a model, its data, and how to train, evaluate and predict. It lives on the edge alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from fl_shared.protocol.messages import Confusion, Partition, TrainingSettings

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """``inputs``: what the model takes, first dimension examples; ``labels``: shape (examples,), int64."""

    inputs: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Examples:
        return Examples(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class LocalData:
    """An edge's part: what it trains on, and what it keeps back for evaluation (``None`` if nothing)."""

    train: Examples
    holdout: Examples | None


@dataclass(frozen=True, slots=True)
class TrainReport:
    """``steps``: optimiser steps taken; ``loss``: per example, mean over the last epoch."""

    steps: int
    loss: float


@dataclass(frozen=True, slots=True)
class Scores:
    """``loss``: per example; ``accuracy``: 0 to 1; ``metrics``: whatever else the task measures, finite.

    ``confusion``: see `classes.confusion`.
    """

    examples: int
    loss: float
    accuracy: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    confusion: Confusion | None = None


class Task(ABC):
    """Subclass this, and name the class in the entry-point group ``fl_mqtt.tasks``, to add a task."""

    name: str
    labels: ClassVar[tuple[str, ...]] = ()
    """Names of the classes, the first of label 0, if it tells classes apart: reports then say how they are spread."""

    @abstractmethod
    def model(self, seed: int) -> nn.Module:
        """A model with first weights that depend on ``seed`` only.

        Called in two threads. What draws from torch's global generator (``torch.random.fork_rng``
        notwithstanding) takes the repeatability from a model that is being trained with dropout meanwhile.
        """

    @abstractmethod
    def load(self, partition: Partition, data_dir: Path | None) -> LocalData:
        """The part of the data that ``partition`` names.

        Raises ``DataMissingError`` saying what to put where, ``ValueError`` if the partition does not fit
        the data.
        """

    @abstractmethod
    def load_test(self, data_dir: Path | None) -> Examples:
        """The data set's test split, which no part contains. Raises ``DataMissingError``."""

    @abstractmethod
    def train(
        self,
        model: nn.Module,
        data: LocalData,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        """Train ``model`` in place on ``data.train``, on the device on which it is.

        All chance comes from ``seed`` (torch's global generator has also been seeded from it).
        ``cancelled`` is to be asked at every step; then raise ``CancelledError``.
        """

    @abstractmethod
    def evaluate(self, model: nn.Module, examples: Examples) -> Scores:
        """How ``model`` does on ``examples`` (at least one)."""

    @abstractmethod
    def predict(self, model: nn.Module, payload: bytes) -> dict[str, float]:
        """The probability of each label for one request. Raises ``PayloadError`` if it is no input."""

    def shared(self, model: nn.Module) -> tuple[str, ...]:
        """The entries of ``model.state_dict()`` that travel: floating-point ones; a counter stays at home."""
        return tuple(name for name, value in model.state_dict().items() if value.is_floating_point())
