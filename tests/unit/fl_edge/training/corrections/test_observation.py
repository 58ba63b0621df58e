"""Corrections, clipping and the count of steps reach every task, or its training fails."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

from tests.support.builders import never, partition, training_request

pytest.importorskip("torch")

import torch
from torch import nn

from fl_edge.errors import TaskError, UnknownCorrectionError
from fl_edge.tasks.sgd import sgd
from fl_edge.tasks.task import Examples
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.factory import executor_for
from fl_shared.protocol.abilities import BF16
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Vector
from tests.support.optimised_task import STEPS, batches, by_hand, update, with_optimizer

pytestmark = pytest.mark.edge

SGD = with_optimizer(lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.5))
ADAM = with_optimizer(lambda parameters: torch.optim.Adam(parameters, 0.01))


def own_descent(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
    return sgd(model, examples, settings, np.random.SeedSequence(0), never).steps


def prox(mu: float) -> CorrectionRequest:
    return CorrectionRequest("prox", {"mu": mu})


@pytest.mark.parametrize("train", [SGD, ADAM, own_descent])
def test_fedprox_without_weight_is_fedavg_to_the_bit(train) -> None:  # type: ignore[no-untyped-def]
    np.testing.assert_array_equal(update(train, prox(0.0)).delta, update(train).delta)
    assert not np.array_equal(update(train, prox(0.5)).delta, update(train).delta)


def test_fedprox_by_a_hook_is_fedprox_by_the_loss() -> None:
    def term(model: nn.Module, base: list[torch.Tensor]) -> torch.Tensor:
        pairs = zip(model.parameters(), base, strict=True)
        return 0.25 * torch.stack([(now - then).square().sum() for now, then in pairs]).sum()

    by_loss = with_optimizer(lambda parameters: torch.optim.SGD(parameters, 0.1), term)
    by_hook = with_optimizer(lambda parameters: torch.optim.SGD(parameters, 0.1))
    np.testing.assert_array_equal(update(by_hook, prox(0.5)).delta, update(by_loss).delta)


def test_the_steps_that_were_seen_count() -> None:
    def wrong_report(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
        return SGD(model, examples, settings) + 100

    assert update(wrong_report).steps == STEPS
    assert update(ADAM, prox(0.1)).steps == STEPS
    assert update(by_hand).steps == STEPS  # nothing was seen, and nothing is asked


@pytest.mark.parametrize(
    ("train", "asked", "named"),
    [(by_hand, {"correction": prox(0.1)}, "the run needs prox, but"),
     (by_hand, {"correction": prox(0.0)}, "the run needs prox, but"),
     (by_hand, {"clip": 1.0}, "the run needs clip-gradients, but"),
     (SGD, {"logit_adjustment": 1.0}, "the run needs logit-adjustment, but")],
)  # fmt: skip
def test_a_task_that_steps_past_it_is_found_out(train, asked, named) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TaskError, match=named):
        update(train, **asked)


def test_a_correction_that_is_not_here() -> None:
    with pytest.raises(UnknownCorrectionError, match=r"'mime' is unknown here, expected one of: .*prox"):
        update(SGD, CorrectionRequest("mime", {}))


def test_gradients_are_clipped_before_they_are_corrected() -> None:
    seen: list[float] = []

    def after_hooks(parameters):  # type: ignore[no-untyped-def]
        optimizer = torch.optim.SGD(parameters, 0.1)
        optimizer.register_step_post_hook(
            lambda o, _a, _k: seen.append(
                float(torch.nn.utils.get_total_norm([p.grad for g in o.param_groups for p in g["params"]]))
            )
        )
        return optimizer

    update(with_optimizer(after_hooks))
    assert max(seen) > 0.2
    seen.clear()
    update(with_optimizer(after_hooks), clip=0.1)
    assert len(seen) == STEPS
    assert max(seen) <= 0.1 * (1 + 1e-5)


def test_a_gradient_that_there_is_not_stays_so() -> None:
    """An optimiser with decay would move a parameter that had no part in the loss."""

    unused: list[object] = []

    def train(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
        optimizer = torch.optim.SGD(model.parameters(), 0.1, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model[0](examples.inputs).square().mean().backward()  # type: ignore[index]
            optimizer.step()
            unused.append(model[3].weight.grad)  # type: ignore[index]
        return 3

    np.testing.assert_array_equal(update(train, prox(0.0)).delta, update(train).delta)
    assert unused == [None] * 6


def test_logits_are_adjusted_by_the_edges_own_classes() -> None:
    counts = np.array([40, 20, 4]) / 64
    shift = torch.as_tensor(np.log(counts), dtype=torch.float32)

    def by_loss(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
        def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(logits + shift, labels)

        return sgd(model, examples, settings, np.random.SeedSequence(0), never, loss).steps

    np.testing.assert_array_equal(update(own_descent, logit_adjustment=1.0).delta, update(by_loss).delta)


@pytest.mark.parametrize("settings", [{"clip_gradients": 0.5}, {"logit_adjustment": 1.0}, {}])
def test_light_and_full_edges_do_the_same(settings: dict[str, float]) -> None:
    full, light = (executor_for("digits-mlp", None, "cpu", light=light) for light in (False, True))
    assert set(full.abilities()) - {BF16} == set(
        light.abilities()
    )  # some processors have it, light edges do not
    assert {"clip-gradients", "logit-adjustment", "prox"} <= set(full.abilities())
    taken: list[Vector] = []

    def new(values: int) -> Vector:
        taken.append(np.empty(values, np.float32))
        return taken[-1]

    manifest = full.initial_weights(7, new)
    base = taken[0]
    share = partition(count=4, scheme="dirichlet:0.5", holdout=0.2)
    request = training_request(epochs=2, batch_size=16, lr=0.05, momentum=0.9, **settings)
    correction = None if settings else prox(0.5)
    one, other = (
        executor.train(base.copy(), manifest, share, request, 1, "a", lambda: False, new, correction)
        for executor in (full, light)
    )
    assert one.steps == other.steps
    np.testing.assert_allclose(one.delta, other.delta, atol=1e-4)
    plain = training_request(epochs=2, batch_size=16, lr=0.05, momentum=0.9)
    without = light.train(base.copy(), manifest, share, plain, 1, "a", lambda: False, new)
    assert float(np.abs(without.delta - other.delta).max()) > 1e-3


def test_what_is_no_classifier_does_not_offer_to_adjust_logits() -> None:
    assert executor_for("synthetic-10", None, "cpu").abilities() == ()


def test_a_parameter_that_is_changed_beside_the_optimiser_is_found_out() -> None:
    def train(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
        head, tail = model[3], model[0]  # type: ignore[index]
        optimizer = torch.optim.SGD(head.parameters(), 0.1)
        for _ in range(3):
            nn.functional.cross_entropy(model(examples.inputs), examples.labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            with torch.no_grad():
                tail.bias.sub_(0.1 * tail.bias.grad)
            model.zero_grad()
        return 3

    assert update(train).steps == 3
    with pytest.raises(
        TaskError, match=r"needs prox, but the task changes '0.bias' otherwise than by steps of"
    ):
        update(train, prox(0.1))
    with pytest.raises(TaskError, match=r"needs clip-gradients, but the task changes '0.bias'"):
        update(train, clip=1.0)


def by_hand_between(model: nn.Module, examples: Examples) -> None:
    nn.functional.cross_entropy(model(examples.inputs), examples.labels).backward()  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.data -= 0.1 * parameter.grad  # no version counter of torch counts this
    model.zero_grad()


@pytest.mark.parametrize("descent", [SGD, own_descent])
@pytest.mark.parametrize("where", ["before", "after"])
def test_steps_beside_those_of_the_optimiser_are_found_out(descent, where: str) -> None:  # type: ignore[no-untyped-def]
    def train(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
        if where == "before":
            by_hand_between(model, examples)
        steps: int = descent(model, examples, settings)
        if where == "after":
            by_hand_between(model, examples)
        return steps

    update(train)  # nothing is asked
    for asked in ({"correction": prox(0.1)}, {"clip": 1.0}):
        with pytest.raises(TaskError, match=r"but the task changes '0.weight' otherwise than by steps of"):
            update(train, **asked)


def test_a_step_that_is_taken_between_two_others_is_found_out() -> None:
    def train(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
        optimizer = torch.optim.SGD(model.parameters(), 1e-9)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(examples.inputs), examples.labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            by_hand_between(model, examples)
        return 6

    with pytest.raises(TaskError, match="otherwise than by steps of"):
        update(train, prox(5.0))


def test_a_model_that_moves_in_memory_has_not_changed() -> None:
    def train(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
        for parameter in model.parameters():
            turned = tuple(range(parameter.dim()))[::-1]
            parameter.data = parameter.data.permute(turned).contiguous().permute(turned)
        return SGD(model, examples, settings)

    np.testing.assert_allclose(update(train, prox(0.5)).delta, update(SGD, prox(0.5)).delta, atol=1e-6)


def by_closure(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
    """What `SGD` does, as Lightning does it: gradients are there only within the step."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.5)
    for inputs, labels in batches(examples):

        def closure(inputs: torch.Tensor = inputs, labels: torch.Tensor = labels) -> torch.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        if settings.epochs % 2:
            optimizer.step(closure)
        else:
            optimizer.step(closure=closure)
    return STEPS


@pytest.mark.parametrize("epochs", [1, 2], ids=["by position", "by name"])
@pytest.mark.parametrize("asked", [{"correction": prox(0.5)}, {"clip": 0.1}, {}])
def test_a_closure_is_as_good_as_gradients_before_the_step(epochs: int, asked: dict[str, Any]) -> None:
    found, expected = (update(train, epochs=epochs, **asked) for train in (by_closure, SGD))
    np.testing.assert_array_equal(found.delta, expected.delta)
    assert found.steps == expected.steps == STEPS


class Lookahead(torch.optim.Optimizer):
    """Steps by another optimiser's step."""

    def __init__(self, parameters: Any, *, named: bool) -> None:
        self.inner = torch.optim.SGD(parameters, 0.1, momentum=0.5)
        params = [p for group in self.inner.param_groups for p in group["params"]]
        super().__init__(params if named else [torch.zeros(1, requires_grad=True)], {})

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)


@pytest.mark.parametrize("named", [True, False], ids=["with its parameters", "without"])
@pytest.mark.parametrize("asked", [{"correction": prox(0.5)}, {"clip": 0.1}, {}])
def test_an_optimiser_within_another_changes_no_gradient_twice(named: bool, asked: dict[str, Any]) -> None:
    nested = with_optimizer(lambda parameters: Lookahead(parameters, named=named))
    found, expected = (update(train, **asked) for train in (nested, SGD))
    np.testing.assert_array_equal(found.delta, expected.delta)
    assert found.steps == expected.steps == STEPS


class Centralized(torch.optim.SGD):
    """Changes the gradients, and steps by the step of its base class."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad *= 0.5
        return super().step(closure)


@pytest.mark.parametrize("asked", [{"correction": prox(0.5)}, {"clip": 0.1}, {}])
def test_the_step_of_a_base_class_changes_no_gradient_twice(asked: dict[str, Any]) -> None:
    halved = with_optimizer(lambda parameters: Centralized(parameters, 0.2))
    plain = with_optimizer(lambda parameters: torch.optim.SGD(parameters, 0.1))
    found, expected = (update(train, **asked) for train in (halved, plain))
    np.testing.assert_allclose(found.delta, expected.delta, atol=1e-6)
    assert found.steps == expected.steps == STEPS


def test_a_training_that_goes_on_after_a_step_that_failed_is_found_out() -> None:
    class Failing(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:  # noqa: ARG002
            raise MemoryError

    def train(model: nn.Module, examples: Examples, settings: TrainingSettings) -> int:
        failing = Failing(model.parameters(), 0.1)
        nn.functional.cross_entropy(model(examples.inputs), examples.labels).backward()  # type: ignore[no-untyped-call]
        with contextlib.suppress(MemoryError):
            failing.step()
        return SGD(model, examples, settings)

    assert update(train).delta.any()
    with pytest.raises(
        TaskError, match="needs prox, but the task has gone on after a step of Failing that failed"
    ):
        update(train, prox(0.5))
