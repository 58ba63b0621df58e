"""The base class of tasks whose model is one of scikit-learn's that learn by ``partial_fit``.

They are ``SGDClassifier`` (with ``loss="log_loss"``), ``SGDRegressor``, ``MLPClassifier`` and ``MLPRegressor``. Needs
scikit-learn, and torch, which carries the weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_edge.errors import CancelledError
from fl_edge.tasks.epochs import check_loss, numpy_orders
from fl_edge.tasks.task import Examples, LocalData, Scores, Task, TrainReport
from fl_shared.protocol.messages import TrainingSettings

LEAST_PROBABILITY: Final = 1e-7
"""In the cross-entropy, so that it is finite for a model that is certain of a wrong class."""


class SklearnModule(nn.Module):
    """An ``estimator`` whose weights are parameters, ``coef_0``, ``intercept_0`` and so on, in float32."""

    def __init__(self, estimator: Any) -> None:
        super().__init__()
        self.estimator = estimator
        for name, array in self._arrays().items():
            self.register_parameter(name, nn.Parameter(torch.from_numpy(array.astype(np.float32))))

    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Returns the arrays of the estimator by name; SGD models have one of each kind, MLPs one for each layer."""
        if hasattr(self.estimator, "coefs_"):
            kinds = {"coef": self.estimator.coefs_, "intercept": self.estimator.intercepts_}
        else:
            kinds = {"coef": [self.estimator.coef_], "intercept": [self.estimator.intercept_]}
        return {f"{kind}_{k}": array for kind, arrays in kinds.items() for k, array in enumerate(arrays)}

    def write(self) -> Any:
        """Returns the estimator with the parameters' values."""
        for name, array in self._arrays().items():
            array[...] = self.get_parameter(name).detach().cpu().numpy()
        return self.estimator

    def read(self) -> None:
        """Takes the values of the estimator, which has been trained."""
        with torch.no_grad():
            for name, array in self._arrays().items():
                self.get_parameter(name).copy_(torch.from_numpy(np.asarray(array, np.float32)))


class SklearnTask(Task):
    """A task on arrays of NumPy. Labels: classes from 0, or numbers of the shape (examples,).

    Only lr, epochs and batch size of the settings are used; momentum, penalties and the like are the estimator's own.
    """

    @abstractmethod
    def estimator(self, seed: int, lr: float) -> Any:
        """Returns a new estimator with ``random_state=seed``, whose constant learning rate is ``lr``."""

    @abstractmethod
    def shape(self) -> Examples:
        """Returns examples, one of each class, or one with a number as label, from which the model takes its shape."""

    def model(self, seed: int) -> nn.Module:
        return SklearnModule(self._fitted(seed, lr=0.0001))

    def train(
        self,
        model: Any,
        data: LocalData,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        # A new estimator each time: none of its state but the weights outlives a round.
        model.estimator = self._fitted(int(seed.generate_state(1)[0]), settings.lr)
        estimator = model.write()
        orders, steps, loss = numpy_orders(seed), 0, 0.0
        for epoch in range(settings.epochs):
            order = orders(len(data.train))
            for start in range(0, len(order), settings.batch_size):
                if cancelled():
                    raise CancelledError("training was cancelled")
                batch = order[start : start + settings.batch_size]
                estimator.partial_fit(data.train.inputs[batch], data.train.labels[batch])
                steps += 1
            loss = self._loss(estimator, data.train)
            check_loss(loss, epoch, settings)
        model.read()
        return TrainReport(steps, loss)

    def evaluate(self, model: Any, examples: Examples) -> Scores:
        estimator = model.write()
        metrics = self.measure(estimator.predict(examples.inputs), examples.labels)
        return Scores(len(examples), self._loss(estimator, examples), metrics)

    @abstractmethod
    def measure(self, predicted: NDArray[Any], labels: NDArray[Any]) -> Mapping[str, float]:
        """Returns the metrics that the task declares."""

    def _fitted(self, seed: int, lr: float) -> Any:
        first, shape = self.estimator(seed, lr), self.shape()
        known = {"classes": np.unique(shape.labels)} if hasattr(first, "predict_proba") else {}
        return first.partial_fit(shape.inputs, shape.labels, **known)

    def _loss(self, estimator: Any, examples: Examples) -> float:
        if not hasattr(estimator, "predict_proba"):
            return float(np.square(estimator.predict(examples.inputs) - examples.labels).mean())
        likely = estimator.predict_proba(examples.inputs)[np.arange(len(examples)), examples.labels]
        return float(-np.log(np.maximum(likely, LEAST_PROBABILITY)).mean())
