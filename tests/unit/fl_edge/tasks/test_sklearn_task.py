"""Estimators of scikit-learn learn by partial_fit, and their weights travel as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fl_edge.tasks.sklearn_task import SklearnTask
from fl_edge.tasks.task import Examples, LoadContext, LocalData, Metric
from fl_edge.training.torch_executor import TorchExecutor
from fl_shared.protocol.messages import Partition, TrainingRequest

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(300, 4)).astype(np.float32)
TARGET = INPUTS @ np.array([1, -2, 0.5, 3], np.float32)


class Estimated(SklearnTask):
    name = "estimated"
    metrics = (Metric("score"),)

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.is_classifier = kind, kind.endswith("Classifier")

    def estimator(self, seed: int, lr: float) -> Any:
        from sklearn import linear_model, neural_network  # seconds, which only this file's process spends

        if self.kind.startswith("MLP"):
            made = getattr(neural_network, self.kind)
            return made(hidden_layer_sizes=(16,), solver="sgd", learning_rate_init=lr, random_state=seed)
        loss = {"loss": "log_loss"} if self.is_classifier else {}
        made = getattr(linear_model, self.kind)
        return made(learning_rate="constant", eta0=lr, random_state=seed, **loss)

    def shape(self) -> Examples:
        return Examples(np.zeros((2, 4), np.float32), np.array([0, 1]))

    def _examples(self) -> Examples:
        return Examples(INPUTS, (TARGET > 0).astype(np.int64) if self.is_classifier else TARGET)

    def load(self, context: LoadContext) -> LocalData:  # noqa: ARG002
        return LocalData(self._examples(), None)

    def load_test(self, data_dir: Path | None) -> Examples:  # noqa: ARG002
        return self._examples()

    def measure(self, predicted: Any, labels: Any) -> dict[str, float]:
        if self.is_classifier:
            return {"score": float((predicted == labels).mean())}
        return {"score": float(1 - np.square(predicted - labels).mean() / labels.var())}

    def predict(self, model: Any, payload: bytes) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    "kind",
    [
        "SGDClassifier",
        "MLPRegressor",
        *(pytest.param(kind, marks=pytest.mark.long) for kind in ("SGDRegressor", "MLPClassifier")),
    ],
)
def test_an_estimator_learns_from_its_own_weights(kind: str) -> None:
    executor = TorchExecutor(Estimated(kind), None, "cpu")
    vectors: list[Any] = []

    def allocate(values: int) -> Any:
        vectors.append(np.empty(values, np.float32))
        return vectors[-1]

    manifest = executor.initial_weights(3, allocate)
    executor.initial_weights(3, allocate)
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert executor.summarize("a", None).manifest == manifest
    partition = Partition(index=0, count=1, scheme="own", seed=0, holdout=0.0)
    settings = TrainingRequest(epochs=10, batch_size=16, lr=0.02, momentum=0.0, seed=1)
    weights = vectors[0]
    losses, lengths = [executor.evaluate(weights, manifest, "test", "a", None).loss], []
    for number in (1, 2):
        update, again = (
            executor.train(
                weights.copy(), manifest, partition, settings, number, "a", lambda: False, allocate
            )
            for _ in range(2)
        )
        np.testing.assert_array_equal(update.delta, again.delta)
        weights = weights + update.delta
        lengths.append(np.linalg.norm(update.delta))
        losses.append(executor.evaluate(weights, manifest, "test", "a", None).loss)
        assert update.metrics.train is not None
        assert update.metrics.train["loss"] == pytest.approx(losses[-1], rel=1e-3)
    assert losses[-1] < losses[0]
    assert lengths[1] < lengths[0], "the second round goes on from the weights of the first"
    assert executor.evaluate(weights, manifest, "test", "a", None).metrics["score"] > 0.9
