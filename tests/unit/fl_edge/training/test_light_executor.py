"""Light and full edges do the same work: first weights, one round, evaluation, prediction."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fl_edge.errors import ManifestMismatchError, UnknownTaskError
from fl_edge.tasks import registry
from fl_edge.training.executor import Executor
from fl_edge.training.factory import executor_for
from fl_edge.training.light_executor import LightExecutor
from fl_edge.training.torch_executor import TorchExecutor
from fl_shared.protocol.messages import Partition, TrainingRequest
from fl_shared.tensors.manifest import Manifest, Vector, manifest_of

TASK = "digits-mlp"
PARTITION = Partition(index=1, count=4, scheme="iid", seed=2, holdout=0.2)
ONE_STEP = TrainingRequest(epochs=1, batch_size=4096, lr=0.1, momentum=0.9, seed=7)
SETTINGS = TrainingRequest(epochs=3, batch_size=16, lr=0.05, momentum=0.9, seed=7)


def executors() -> tuple[Executor, Executor]:
    full, light = executor_for(TASK, None, "cpu"), executor_for(TASK, None, "cpu", light=True)
    assert (type(full), type(light)) == (TorchExecutor, LightExecutor)
    return full, light


def new(values: int) -> Vector:
    return np.empty(values, np.float32)


def first(executor: Executor, seed: int = 7) -> tuple[Manifest, Vector]:
    taken: list[Vector] = []

    def allocate(values: int) -> Vector:
        taken.append(new(values))
        return taken[0]

    return executor.initial_weights(seed, allocate), taken[0]


def test_manifests_summaries_and_first_weights_are_equal() -> None:
    full, light = executors()
    assert full.summarize("a", PARTITION) == light.summarize("a", PARTITION)
    assert full.declared_metrics() == light.declared_metrics()
    (manifest, weights), (light_manifest, light_weights) = first(full), first(light)
    assert manifest.digest == light_manifest.digest
    np.testing.assert_array_equal(weights, light_weights)


@pytest.mark.parametrize(("settings", "tolerance"), [(ONE_STEP, 1e-6), (SETTINGS, 1e-4)])
def test_updates_are_equal(settings: TrainingRequest, tolerance: float) -> None:
    manifest, base = first(executors()[0])
    one, other = (
        executor.train(base.copy(), manifest, PARTITION, settings, 1, "a", lambda: False, new)
        for executor in executors()
    )
    assert float(np.abs(one.delta).max()) > 0.01
    np.testing.assert_allclose(one.delta, other.delta, atol=tolerance, rtol=0)
    assert (one.examples, one.steps) == (other.examples, other.steps)
    assert one.metrics.train == pytest.approx(other.metrics.train, abs=1e-4)
    assert one.metrics.after == pytest.approx(other.metrics.after, abs=1e-2)


def test_scores_and_answers_are_equal_and_good() -> None:
    full, light = executors()
    manifest, base = first(light)
    whole = Partition(index=0, count=1, scheme="iid", seed=2, holdout=0.0)
    many = SETTINGS.model_copy(update={"epochs": 10})
    update = light.train(base.copy(), manifest, whole, many, 1, "a", lambda: False, new)
    weights = base + update.delta
    one, other = (executor.evaluate(weights, manifest, "test", "a", None) for executor in (full, light))
    assert one.metrics["accuracy"] > 0.95
    assert one.confusion == other.confusion
    assert one.loss == pytest.approx(other.loss)
    request = json.dumps(light.example_request()).encode()
    answers = [executor.make_predictor(weights, manifest)(request) for executor in (full, light)]
    assert answers[0]["label"] == answers[1]["label"]
    assert answers[0]["probabilities"] == pytest.approx(answers[1]["probabilities"])


def test_another_model_is_refused_by_name() -> None:
    manifest = manifest_of({"fc1.weight": np.zeros((3, 64), np.float32)})
    with pytest.raises(ManifestMismatchError, match=r"array 'fc1.bias' is absent"):
        executors()[1].make_predictor(np.zeros(192, np.float32), manifest)


def test_a_task_that_needs_torch_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownTaskError, match="'digits' needs torch: expected an edge without --light"):
        executor_for("digits", None, "cpu", light=True)
    assert registry.light_names()[0] == TASK
    assert "mnist" not in registry.light_names()

    def missing(_self: Any) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("importlib.metadata.EntryPoint.load", missing)
    with pytest.raises(UnknownTaskError, match=r"'mnist' needs torch, .*: pip install 'fl-mqtt\[edge\]'"):
        registry.task_class("mnist")
