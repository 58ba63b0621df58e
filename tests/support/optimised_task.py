"""A task whose training is given: with any optimiser, and with anything added to its loss."""

# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fl_edge.tasks.task import Examples, LoadContext, LocalData, Scores, Task, TrainReport
from fl_edge.training import local_training
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.executor import TrainedUpdate
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Manifest, Vector
from tests.support.builders import never, training_settings

STEPS = 12
Train = Callable[[nn.Module, Examples, TrainingSettings], int]
"""Trains in place, and returns the number of steps that the task reports."""


def batches(examples: Examples) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The minibatches of a training, `STEPS` in all."""
    parts = [slice(16 * (step % 4), 16 * (step % 4) + 16) for step in range(STEPS)]
    return [(examples.inputs[part], examples.labels[part]) for part in parts]


def with_optimizer(
    make: Callable[[Any], torch.optim.Optimizer],
    extra: Callable[[nn.Module, list[torch.Tensor]], torch.Tensor] | None = None,
) -> Train:
    """Training by an optimiser of torch; ``extra`` of the model and the base is added to the loss."""

    def train(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
        optimizer = make(model.parameters())
        base = [parameter.detach().clone() for parameter in model.parameters()]
        for inputs, labels in batches(examples):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), labels)
            if extra is not None:
                loss = loss + extra(model, base)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return STEPS

    return train


def by_hand(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
    """Training that steps past every optimiser."""
    for inputs, labels in batches(examples):
        functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.sub_(0.1 * parameter.grad)
                parameter.grad = None
    return STEPS


class OptimisedTask(Task):
    """64 random examples of three classes; 40, 20 and 4 of them."""

    name = "optimised"
    labels = ("a", "b", "c")

    def __init__(self, train: Train) -> None:
        super().__init__()
        self._train = train

    def model(self, seed: int) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3))

    def load(self, context: LoadContext) -> LocalData:
        return LocalData(self.examples(), None)

    def examples(self) -> Examples:
        chance = torch.Generator().manual_seed(3)
        labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 4)[torch.randperm(64, generator=chance)]
        return Examples(torch.randn(64, 5, generator=chance), labels)

    def train(
        self,
        model: nn.Module,
        data: LocalData,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        return TrainReport(self._train(model, data.train, settings), 0.5)

    def evaluate(self, model: nn.Module, examples: Examples) -> Scores:
        raise AssertionError("there is no holdout")

    def predict(self, model: nn.Module, payload: bytes) -> Mapping[str, Any]:
        raise AssertionError("nobody asks")


def first(task: Task) -> tuple[Manifest, Vector]:
    """The manifest of the task's weights, and the first ones."""
    return local_training.initial_weights(task, 0)


def update(
    train: Train,
    correction: CorrectionRequest | None = None,
    clip: float = 0.0,
    **settings: Any,
) -> TrainedUpdate:
    """The update of one training from the first weights."""
    task = OptimisedTask(train)
    manifest, weights = first(task)
    return local_training.train_update(
        task,
        task.load(LoadContext("0", None, None)),  # type: ignore[arg-type]
        weights,
        manifest,
        training_settings(**settings),
        1,
        "0",
        never,
        correction=correction,
        clip_gradients=clip,
    )
