"""Between the wire's vectors and torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.builders import never, partition, training_settings

pytest.importorskip("torch")

import torch
from torch import nn

from fl_edge.errors import (
    CancelledError,
    DataCorruptError,
    DataMissingError,
    DivergedError,
    ManifestMismatchError,
)
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.sgd import sgd
from fl_edge.tasks.task import Examples, LoadContext, LocalData, Metric, Scores, Task, TrainReport
from fl_edge.training import local_training
from fl_edge.training.executor import TrainedUpdate, edge_seed
from fl_edge.training.local_training import train_update
from fl_edge.training.task_results import checked_data
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Manifest, Vector, unflatten

pytestmark = pytest.mark.edge


@pytest.fixture(autouse=True)
def _settled() -> None:
    local_training.configure_torch()


def digits(holdout: float = 0.2) -> LocalData:
    return load_task("digits").load(LoadContext("0", partition(holdout=holdout), None))


def train(
    number: int = 1,
    client: str = "edge-0",
    data: LocalData | None = None,
    base: Vector | None = None,
    cancelled: Callable[[], bool] = never,
    **changes: Any,
) -> TrainedUpdate:
    task = load_task("digits")
    manifest, weights = local_training.initial_weights(task, 0)
    return train_update(
        task,
        data or digits(),
        weights if base is None else base,
        manifest,
        training_settings(**changes),
        number,
        client,
        cancelled,
    )


def test_an_update_is_what_was_learnt() -> None:
    task, data = load_task("digits"), digits()
    manifest, base = local_training.initial_weights(task, 0)
    kept = base.copy()
    update = train(data=data, base=base)
    assert (base == kept).all()
    assert update.delta.dtype == np.float32
    assert update.delta.shape == (53_002,)
    assert (update.examples, update.steps) == (58, 4)
    assert update.seconds > 0

    # The same by hand.
    model = task.model(0)
    report = task.train(model, data, training_settings(), edge_seed(0, 1, "edge-0"), never)
    for name, learnt in unflatten(update.delta, manifest).items():
        local = model.state_dict()[name].numpy()
        np.testing.assert_array_equal(learnt, local - unflatten(base, manifest)[name])
    assert update.metrics.train == {"loss": report.loss}


def test_the_same_chance_gives_the_same_bits() -> None:
    torch.manual_seed(1)
    one = train().delta
    torch.manual_seed(2)
    assert (train().delta == one).all()


@pytest.mark.parametrize("changes", [{"number": 2}, {"client": "edge-1"}, {"seed": 1}])
def test_round_client_and_seed_change_the_order_of_the_examples(changes: dict[str, Any]) -> None:
    assert (train(**changes).delta != train().delta).any()


def test_an_edges_chance_never_changes() -> None:
    assert edge_seed(0, 1, "edge-7").entropy == [0, 1, 13083413003477732363]


def test_metrics_are_those_of_the_holdout_before_and_after() -> None:
    task, data = load_task("digits"), digits()
    manifest, base = local_training.initial_weights(task, 0)
    update = train(data=data, epochs=20)
    assert data.holdout is not None
    for metrics, weights in ((update.metrics.before, base), (update.metrics.after, base + update.delta)):
        scores = local_training.evaluate(task, weights, manifest, data.holdout)
        assert metrics is not None
        assert metrics["accuracy"] == pytest.approx(scores.metrics["accuracy"])
        assert metrics["loss"] == pytest.approx(scores.loss, rel=1e-4)
        assert metrics["examples"] == scores.examples == 14
    assert update.metrics.before is not None
    assert update.metrics.after is not None
    assert update.metrics.after["loss"] < update.metrics.before["loss"]


def test_without_a_holdout_nothing_is_claimed_about_it() -> None:
    metrics = train(data=digits(holdout=0.0)).metrics
    assert metrics.before is metrics.after is None
    assert metrics.train is not None


def test_nothing_is_trained_on_no_examples_and_no_holdout_is_measured_without_any() -> None:
    data, none = digits(), Examples(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(DataMissingError, match="task digits: this edge has no examples to train on"):
        train(data=LocalData(none, data.holdout))
    assert checked_data(load_task("digits"), LocalData(data.train, none)).holdout is None


def test_a_cancel_ends_it() -> None:
    with pytest.raises(CancelledError):
        train(cancelled=lambda: True)


def test_what_diverges_is_no_update() -> None:
    with pytest.raises(DivergedError):
        train(lr=1e6, epochs=30)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_base_that_is_not_finite_on_the_examples_is_no_base(value: float) -> None:
    task = load_task("digits")
    manifest, base = local_training.initial_weights(task, 0)
    base[:] = value
    with pytest.raises(DivergedError):
        train(base=base)
    with pytest.raises(DivergedError, match="examples the model's loss is"):
        local_training.evaluate(task, base, manifest, task.load_test(None))


def test_another_tasks_model_is_refused_with_the_array_that_differs() -> None:
    task = load_task("digits")
    manifest, weights = local_training.initial_weights(load_task("mnist"), 0)
    with pytest.raises(ManifestMismatchError, match=r"task digits: .*array 'conv1.bias' is .*\[20\].*\[32\]"):
        train_update(task, digits(), weights, manifest, training_settings(), 1, "edge-0", never)


def test_a_missing_array_and_another_role_are_named() -> None:
    task = load_task("digits")
    manifest, weights = local_training.initial_weights(task, 0)
    without = Manifest(arrays=manifest.arrays[1:])
    with pytest.raises(ManifestMismatchError, match=r"'conv1.bias' is absent, expected"):
        local_training.model_from(task, weights[32:], without)
    other = Manifest(arrays=(manifest.arrays[0].model_copy(update={"role": "buffer"}), *manifest.arrays[1:]))
    with pytest.raises(ManifestMismatchError, match="buffer"):
        local_training.model_from(task, weights, other)


def test_a_vector_of_another_length_is_refused() -> None:
    task = load_task("digits")
    manifest, weights = local_training.initial_weights(task, 0)
    with pytest.raises(ValueError, match=r"shape \(53001,\), expected \(53002,\)"):
        local_training.model_from(task, weights[1:], manifest)


# --- a task with what the built-in ones lack: buffers, dropout, a part that stays at home


class Odd(Task):
    name = "odd"

    def model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2), nn.Linear(2, 2)
            )

    def load(self, context: LoadContext) -> LocalData:  # noqa: ARG002
        inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        return LocalData(Examples(inputs, (inputs[:, 0] > 0).long()), None)

    def load_test(self, data_dir: Path | None) -> Examples:
        raise NotImplementedError

    def train(
        self,
        model: nn.Module,
        data: LocalData,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        return sgd(model, data.train, settings, seed, cancelled)

    def evaluate(self, model: nn.Module, examples: Examples) -> Scores:
        raise NotImplementedError

    def predict(self, model: nn.Module, payload: bytes) -> dict[str, Any]:
        raise NotImplementedError

    def shared(self, model: nn.Module) -> tuple[str, ...]:
        return tuple(name for name in super().shared(model) if not name.startswith("4."))


PARTITION = partition(count=1, scheme="own", holdout=0)


def test_buffers_travel_as_such_and_counters_and_personal_layers_stay_at_home() -> None:
    manifest, weights = local_training.initial_weights(Odd(), 0)
    roles = {array.name: array.role for array in manifest.arrays}
    assert roles == {
        "0.bias": "parameter",
        "0.weight": "parameter",
        "1.bias": "parameter",
        "1.running_mean": "buffer",
        "1.running_var": "buffer",
        "1.weight": "parameter",
        "3.bias": "parameter",
        "3.weight": "parameter",
    }
    assert weights.shape == (4 * 8 + 8 + 4 * 8 + 8 * 2 + 2,)
    update = train_update(
        Odd(),
        Odd().load(LoadContext("0", PARTITION, None)),
        weights,
        manifest,
        training_settings(),
        1,
        "edge-0",
        never,
    )
    assert unflatten(update.delta, manifest)["1.running_mean"].any()


def test_dropout_repeats_as_well() -> None:
    manifest, weights = local_training.initial_weights(Odd(), 0)
    data = Odd().load(LoadContext("0", PARTITION, None))

    def delta(number: int, noise: int) -> Vector:
        torch.manual_seed(noise)
        return train_update(Odd(), data, weights, manifest, training_settings(), number, "e", never).delta

    assert (delta(1, noise=5) == delta(1, noise=6)).all()
    assert (delta(1, noise=5) != delta(2, noise=5)).any()


def test_training_leaves_torchs_global_chance_as_it_was() -> None:
    manifest, weights = local_training.initial_weights(Odd(), 0)
    before = torch.random.get_rng_state()
    train_update(
        Odd(),
        Odd().load(LoadContext("0", PARTITION, None)),
        weights,
        manifest,
        training_settings(),
        1,
        "e",
        never,
    )
    assert torch.equal(torch.random.get_rng_state(), before)


class Scored(Odd):
    """Its holdout has one class, so that the area under its ROC curve is not a number."""

    metrics = (Metric("auc"), Metric("f1"))
    loss = 0.5

    def load(self, context: LoadContext) -> LocalData:
        data = super().load(context)
        return LocalData(data.train, data.train)

    def evaluate(self, model: nn.Module, examples: Examples) -> Scores:  # noqa: ARG002
        return Scores(len(examples), self.loss, {"auc": float("nan"), "f1": 0.5})


def scored(task: Task) -> TrainedUpdate:
    manifest, weights = local_training.initial_weights(task, 0)
    data = task.load(LoadContext("0", partition(), None))
    return train_update(task, data, weights, manifest, training_settings(), 1, "edge-0", never)


def test_a_metric_that_is_not_finite_is_left_out_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    metrics = scored(Scored()).metrics
    assert metrics.after == metrics.before == {"f1": 0.5, "examples": 64.0, "loss": 0.5}
    scored(Scored())
    assert [record.getMessage() for record in caplog.records] == [
        "task odd: the metric auc is not finite on this edge's examples: leaving it out"
    ]


def test_a_loss_that_is_not_finite_is_named() -> None:
    task = Scored()
    task.loss = float("inf")
    with pytest.raises(DivergedError, match=r"loss is inf, expected a finite number"):
        scored(task)


@pytest.mark.parametrize(
    "part",
    ["inputs of example 5 (from 0) of those to train on", "inputs of example 2 (from 0) of those held out"],
)
def test_training_that_diverges_on_data_that_are_not_finite_blames_them(part: str) -> None:
    data = digits()
    assert data.holdout is not None
    if "held out" in part:
        images = torch.as_tensor(data.holdout.inputs).clone()
        images[2, 0, 0] = float("inf")
        data = LocalData(data.train, Examples(images, data.holdout.labels))
    else:
        images = torch.as_tensor(data.train.inputs).clone()
        images[5, 0, 0] = float("nan")
        data = LocalData(Examples(images, data.train.labels), data.holdout)
    with pytest.raises(DataCorruptError) as raised:
        train(data=data)
    assert str(raised.value) == f"task digits: load(): NaN or infinity in the {part}, expected finite numbers"
    with pytest.raises(DivergedError, match="learning rate"):
        train(lr=1e6)


class Borrowed(Odd):
    """Its model draws first weights from torch's global generator, as those of torchvision do."""

    def model(self, seed: int) -> nn.Module:  # noqa: ARG002
        return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def test_a_model_may_draw_from_torchs_global_generator() -> None:
    vectors = [local_training.initial_weights(Borrowed(), seed)[1] for seed in (3, 3, 4)]
    assert (vectors[0] == vectors[1]).all()
    assert (vectors[0] != vectors[2]).any()
