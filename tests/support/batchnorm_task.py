"""Small handwritten digits, with a perceptron that has a layer of batch normalization."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fl_edge.tasks.answers import class_answer
from fl_edge.tasks.classes import DIGITS
from fl_edge.tasks.digits_mlp import DigitsMlpTask
from fl_edge.tasks.sgd import sgd
from fl_edge.tasks.task import Examples, LoadContext, LocalData, Metric, Scores, Task, TrainReport

NAME = "tests.support.batchnorm_task:NormalizedDigits"
OF_BATCHNORM = ("norm.bias", "norm.running_mean", "norm.running_var", "norm.weight")
"""The arrays of the layer that are shared without ``--keep-local``."""


class Network(nn.Module):
    """64 → 16 → 10."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 16)
        self.norm = nn.BatchNorm1d(16)
        self.last = nn.Linear(16, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.last(torch.relu(self.norm(self.first(inputs))))
        return logits


class NormalizedDigits(Task):
    """The data of ``digits-mlp``."""

    name = "normalized-digits"
    labels = DIGITS
    metrics = (Metric("accuracy", unit="%", minimum=0.0, maximum=1.0),)

    def model(self, seed: int) -> nn.Module:  # noqa: ARG002  torch's generator has been seeded
        return Network()

    def load(self, context: LoadContext) -> LocalData:
        return DigitsMlpTask().load(context)

    def load_test(self, data_dir: Path | None) -> Examples:
        return DigitsMlpTask().load_test(data_dir)

    def train(self, model: nn.Module, data: LocalData, settings: Any, *rest: Any) -> TrainReport:
        return sgd(model, Examples(*data.train.tensors()), settings, *rest)

    def evaluate(self, model: nn.Module, examples: Examples) -> Scores:
        inputs, labels = examples.tensors()
        with torch.no_grad():
            logits = model.eval()(inputs)
        accuracy = float((logits.argmax(dim=1) == labels).float().mean())
        return Scores(
            len(examples), float(nn.functional.cross_entropy(logits, labels)), {"accuracy": accuracy}
        )

    def predict(self, model: nn.Module, payload: bytes) -> Mapping[str, Any]:  # noqa: ARG002  always the same
        with torch.no_grad():
            return class_answer(self.labels, model.eval()(torch.ones(1, 64)).softmax(dim=1).numpy()[0])
