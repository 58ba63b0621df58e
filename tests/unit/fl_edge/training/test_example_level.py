"""DP-SGD of an edge: no example is heard louder than its clip, the noise is there, and no task steps past both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.builders import never, training_settings

pytest.importorskip("torch")

import torch
from torch import nn
from torch.nn import functional

from fl_edge.errors import TaskError, UnusableModelError
from fl_edge.session.privacy import Charge, ExampleNoise, OwnPrivacy
from fl_edge.tasks.recurrent import GruModule
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.sgd import sgd
from fl_edge.tasks.task import Examples, LocalData, Task
from fl_edge.training import example_level, local_training
from fl_edge.training.example_level import (
    PrivateSgd,
    check_model,
    clipped_sums,
    epsilon_of_examples,
    per_example_gradients,
)
from fl_edge.training.executor import TrainedUpdate
from fl_shared.protocol.messages import TrainingSettings
from tests.support.batchnorm_task import NormalizedDigits
from tests.support.optimised_task import OptimisedTask

pytestmark = pytest.mark.edge

EXAMPLES = 64
Step = Callable[[nn.Module, Examples, TrainingSettings], Any]


class Plain(OptimisedTask):
    """The same without batch normalization."""

    def model(self, seed: int) -> nn.Module:  # noqa: ARG002
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def private(noise: float = 1.0, clip: float = 1.0, spent: tuple[Charge, ...] = ()) -> PrivateSgd:
    return PrivateSgd(OwnPrivacy(ExampleNoise(noise, clip)), spent)


def own_descent(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
    return sgd(model, examples, settings, np.random.SeedSequence(0), never).steps


def update(
    hidden: PrivateSgd | None = None, step: Step = own_descent, task: Task | None = None, **settings: Any
) -> TrainedUpdate:
    task = task or Plain(step)
    manifest, weights = local_training.initial_weights(task, 0)
    data = LocalData(OptimisedTask(step).examples(), None)
    chosen = training_settings(**{"epochs": 3, "batch_size": 16, "lr": 0.1, **settings})
    return local_training.train_update(task, data, weights, manifest, chosen, 1, "0", never, private=hidden)


def samples(kind: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor, Any]:
    chance = torch.Generator().manual_seed(5)
    if kind == "gru":
        inputs, targets = (torch.randn(EXAMPLES, size, generator=chance) for size in (30, 2))
        return GruModule(3, 8, 2, {}), inputs, targets, functional.mse_loss
    shape = (1, 28, 28) if kind == "mnist" else (64,)
    inputs = 9 * torch.randn(EXAMPLES, *shape, generator=chance)
    labels = torch.randint(10, (EXAMPLES,), generator=chance)
    return load_task(kind).model(0), inputs, labels, functional.cross_entropy


@pytest.mark.parametrize("kind", ["mnist", "digits-mlp", "gru"])
def test_the_gradients_of_examples_are_those_of_each_alone(kind: str) -> None:
    """Also of convolutions in channels-last memory, which Opacus' own hooks get wrong, and where vmap cannot."""
    model, inputs, labels, loss_of = samples(kind)
    found, losses = per_example_gradients(model, loss_of)(inputs, labels)
    for index in range(EXAMPLES):
        loss = loss_of(model(inputs[index : index + 1]), labels[index : index + 1])
        alone = torch.autograd.grad(loss, list(model.parameters()))
        for one, other in zip(found, alone, strict=True):
            torch.testing.assert_close(one[index], other, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(losses[index], loss.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["mnist", "digits-mlp", "gru"])
def test_no_example_adds_more_than_the_clip(kind: str) -> None:
    model, inputs, labels, loss_of = samples(kind)
    gradients, _ = per_example_gradients(model, loss_of)(inputs, labels)
    lengths = torch.stack([one.double().flatten(1).square().sum(1) for one in gradients]).sum(0).sqrt()
    clip = float(lengths.median())
    for index, length in enumerate(lengths.tolist()):
        sums = clipped_sums([one[index : index + 1] for one in gradients], clip)
        norm = math.sqrt(sum(float(one.square().sum()) for one in sums))
        assert norm <= clip * (1 + 1e-12)
        assert norm == pytest.approx(min(length, clip), rel=1e-6)


def test_an_example_whose_gradient_is_not_finite_counts_as_nothing() -> None:
    gradients = [torch.tensor([[1.0, 0.0], [math.inf, 0.0], [math.nan, 2.0]])]
    assert clipped_sums(gradients, 0.5)[0].tolist() == [0.5, 0.0]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_without_noise_or_clip_and_with_whole_batches_it_is_plain_sgd(momentum: float) -> None:
    """But for the order in which float32 adds up: within 1e-6."""
    plain, hidden = (
        update(one, batch_size=EXAMPLES, momentum=momentum) for one in (None, private(0.0, math.inf))
    )
    assert plain.steps == hidden.steps == 3
    np.testing.assert_allclose(hidden.delta, plain.delta, atol=1e-6)
    assert np.abs(plain.delta).max() > 0.01


def test_the_noise_has_the_deviation_that_is_accounted() -> None:
    """It is Z × C / batch a step. With 75 values, the examples are a hundredth of that variance."""
    noise, clip, batch = 20.0, 1e-3, 16
    trainings = (
        update(private(noise, clip), epochs=1, batch_size=batch, momentum=0.0, lr=1.0) for _ in range(40)
    )
    deltas = np.concatenate([one.delta for one in trainings])
    assert np.std(deltas) == pytest.approx(math.sqrt(EXAMPLES // batch) * noise * clip / batch, rel=0.06)


@pytest.mark.parametrize(("multiplier", "clip"), [(0.1, 1.0), (50.0, 1e-6), (1.1, 3.0)])
def test_on_the_grid_a_gradient_is_no_longer_than_the_clip(multiplier: float, clip: float) -> None:
    """Each value may be rounded by one unit more with an example than without it."""
    values = 431_080
    private = PrivateSgd(OwnPrivacy(examples=ExampleNoise(multiplier, clip)))
    unit = 2.0**-private._places
    assert 2**27 < multiplier * clip / unit <= 2**28
    assert 0.99 * clip < private._longest(values) <= clip - math.sqrt(values) * unit


def test_chance_is_not_that_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trainings with one seed differ, in noise and in batches."""
    assert not np.array_equal(update(private()).delta, update(private()).delta)
    drawn = [example_level._drawn(1000, 0.25) for _ in range(200)]
    assert len({tuple(one) for one in drawn}) == 200
    counts = np.bincount(np.concatenate(drawn), minlength=1000)
    squares = float(((counts - 50) ** 2 / (200 * 0.25 * 0.75)).sum())
    assert 780 < squares < 1240  # χ² of 1,000 draws; 5 σ
    assert example_level._drawn(7, 1.0).tolist() == list(range(7))


def test_epsilon_is_that_of_opacus_over_all_that_was_spent() -> None:
    from opacus.accountants import PRVAccountant

    before = (Charge("example", 2.0, 0.1, 30), Charge("edge", 1.0), Charge("example", 1.0, 0.25, 5))
    hidden = private(1.0, 1.0, before)
    update(hidden)
    [charge] = hidden.charges
    assert charge == Charge("example", 1.0, 16 / EXAMPLES, 3 * 4)
    accountant = PRVAccountant()
    for noise, rate, steps in ((2.0, 0.1, 30), (1.0, 0.25, 5), (1.0, 0.25, 12)):
        for _ in range(steps):
            accountant.step(noise_multiplier=noise, sample_rate=rate)
    assert hidden.epsilon == pytest.approx(accountant.get_epsilon(delta=1e-5), rel=1e-3)
    assert epsilon_of_examples((), 1e-5) == 0
    assert epsilon_of_examples(before[1:2], 1e-5) == 0


def test_a_large_epsilon_is_bounded_without_the_costly_accountant() -> None:
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(0.1, 0.5, 1000)]
    assert epsilon_of_examples([Charge("example", 0.1, 0.5, 1000)], 1e-5) == accountant.get_epsilon(
        delta=1e-5
    )


# --- tasks that step past it ------------------------------------------------------------------------------


def by_optimiser(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
    optimizer = torch.optim.SGD(model.parameters(), settings.lr)
    functional.cross_entropy(model(examples.inputs), examples.labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return 1


def by_hand_too(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
    steps = own_descent(model, examples, settings)
    with torch.no_grad():
        model.get_parameter("2.bias").add_(examples.inputs.mean())
    return steps


def by_hand_before(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(examples.inputs.mean())
    return own_descent(model, examples, settings)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (by_optimiser, "the task does not train with fl_edge.tasks.sgd"),
        (by_hand_too, "the task changes array '2.bias' besides"),
        (by_hand_before, "the task changes array '0.weight' besides"),
    ],
)
def test_a_task_that_steps_past_it_is_found_out(step: Step, said: str) -> None:
    update(step=step)
    with pytest.raises(TaskError, match=said):
        update(private(), step)


def test_what_a_task_does_at_the_end_is_found_out() -> None:
    class Finishing(Plain):
        def finish(self, model: nn.Module, data: LocalData) -> None:
            by_hand_too(model, data.train, training_settings(epochs=1))

    with pytest.raises(TaskError, match="changes array"):
        update(private(), task=Finishing(own_descent))


def test_logit_adjustment_mixes_examples() -> None:
    with pytest.raises(TaskError, match="logit adjustment mixes examples"):
        update(private(), logit_adjustment=1.0)


def test_models_that_mix_examples_are_refused_by_the_name_of_the_layer() -> None:
    task = NormalizedDigits()
    with pytest.raises(UnusableModelError, match=r"layer 'norm' \(BatchNorm1d\) mixes examples"):
        check_model(task, task.model(0))
    check_model(load_task("mnist"), load_task("mnist").model(0))


def test_tasks_that_share_statistics_of_their_data_are_refused() -> None:
    class Finishing(Plain):
        def finish(self, model: nn.Module, data: LocalData) -> None: ...

    task = Finishing(own_descent)
    with pytest.raises(UnusableModelError, match="shares statistics"):
        check_model(task, task.model(0))
