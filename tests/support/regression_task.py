"""A task that is no classification, in a distribution of its own: predict the power that a house uses."""

from __future__ import annotations

from typing import Any

import torch

from fl_edge.tasks.task import Examples, LocalData, Metric, Scores, Task, TrainReport

USUAL = 20.0
"""kWh; the houses use up to 0.5 kWh more or less."""
STEP = 7.0
"""kWh by which a round of training moves a model: it does not come to rest, so that a later version is worse."""


class Consumption(Task):
    """A constant, trained by the sign of the gradient. Its R² is not a number on the test split."""

    name = "consumption"
    metrics = (Metric("mae", higher_is_better=False, unit="kWh", minimum=0.0), Metric("r2", maximum=1.0))

    def model(self, seed: int) -> Any:  # noqa: ARG002
        linear = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
        return linear

    def load(self, *_: Any) -> LocalData:
        return LocalData(_houses(32), _houses(8))

    def load_test(self, *_: Any) -> Examples:
        return _houses(16)

    def train(self, model: Any, data: LocalData, *_: Any) -> TrainReport:
        error = _errors(model, data.train).mean()
        with torch.no_grad():
            model.bias -= STEP * error.sign()
        return TrainReport(1, float(error**2))

    def evaluate(self, model: Any, examples: Examples) -> Scores:
        errors = _errors(model, examples)
        r2 = (
            float("nan")
            if len(examples) == 16
            else 1 - float((errors**2).sum() / (examples.labels - USUAL).pow(2).sum())
        )
        return Scores(len(examples), float((errors**2).mean()), {"mae": float(errors.abs().mean()), "r2": r2})

    def predict(self, *_: Any) -> Any:
        raise NotImplementedError


def _houses(count: int) -> Examples:
    return Examples(torch.zeros(count, 1), USUAL + torch.linspace(-0.5, 0.5, count))


def _errors(model: Any, examples: Examples) -> torch.Tensor:
    with torch.no_grad():
        errors: torch.Tensor = model(examples.inputs)[:, 0] - examples.labels
    return errors
