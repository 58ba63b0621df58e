"""A task with BatchNorm whose inputs are in no standard range, such as a sensor's pascals."""

from __future__ import annotations

from typing import Any

import torch

from fl_edge.tasks.sgd import sgd
from fl_edge.tasks.task import Examples, LocalData, Scores, Task, TrainReport

SPREAD = 1000.0
"""Pascals. The running variance of an input is its square."""


class Pressure(Task):
    """Tells from four pressures whether their sum is above the usual one."""

    name = "pressure"

    def model(self, seed: int) -> Any:  # noqa: ARG002
        return torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))

    def load(self, *_: Any) -> LocalData:
        return LocalData(_pressures(64), _pressures(16))

    def load_test(self, *_: Any) -> Examples:
        return _pressures(32)

    def train(self, model: Any, data: LocalData, settings: Any, *rest: Any) -> TrainReport:
        return sgd(model, data.train, settings, *rest)

    def evaluate(self, model: Any, examples: Examples) -> Scores:
        with torch.no_grad():
            loss = torch.nn.functional.cross_entropy(model.eval()(examples.inputs), examples.labels)
        return Scores(len(examples), float(loss))

    def predict(self, *_: Any) -> Any:
        raise NotImplementedError


def _pressures(count: int) -> Examples:
    inputs = 101_325 + SPREAD * torch.randn(count, 4, generator=torch.Generator().manual_seed(count))
    return Examples(inputs, (inputs.sum(dim=1) > 4 * 101_325).long())
