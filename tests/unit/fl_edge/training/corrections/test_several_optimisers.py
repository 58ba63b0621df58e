"""A task with two optimisers, as a GAN has: each step is corrected and clipped for the parameters that it changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from fl_edge.tasks.task import Examples
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Vector, unflatten
from tests.support.optimised_task import OptimisedTask, batches, first, update, with_optimizer

pytestmark = pytest.mark.edge

MANIFEST, _ = first(OptimisedTask(with_optimizer(torch.optim.SGD)))
PARAMETERS = np.concatenate([np.full(spec.values, spec.role == "parameter") for spec in MANIFEST.arrays])
FIRST, SECOND = ("0.weight", "0.bias", "1.weight", "1.bias"), ("3.weight", "3.bias")
LR = 0.1


class Adversaries:
    """Layer 3 takes one step, then the layers before it two; the losses are opposed. Keeps what it does by hand.

    ``correct``: changes the gradients of the named parameters of a step, by hand; null: nothing is done by hand.
    """

    def __init__(self, correct: Any = None) -> None:
        self._correct = correct
        self.gradients: dict[str, list[torch.Tensor]] = {name: [] for name in FIRST + SECOND}

    def __call__(self, model: nn.Module, examples: Examples, _settings: TrainingSettings) -> int:
        named = dict(model.named_parameters())
        base = {name: parameter.detach().clone() for name, parameter in named.items()}
        optimizers = {
            names: torch.optim.SGD([named[name] for name in names], LR) for names in (FIRST, SECOND)
        }
        for number, (inputs, labels) in enumerate(batches(examples)):
            names, sign = (SECOND, 1.0) if number % 3 == 0 else (FIRST, -0.5)
            loss = sign * nn.functional.cross_entropy(model(inputs), labels)
            model.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for name in names:
                gradient = named[name].grad
                assert gradient is not None
                self.gradients[name].append(gradient.clone())
            if self._correct is not None:
                with torch.no_grad():
                    self._correct(names, named, base)
            optimizers[names].step()
        return 12


def by_name(vector: Vector) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in unflatten(vector, MANIFEST).items()}


def norm(tensors: Sequence[torch.Tensor]) -> float:
    return float(torch.stack([one.norm() for one in tensors]).norm())


def test_fedprox_pulls_each_to_the_base() -> None:
    def pull(names: Any, named: Any, base: Any) -> None:
        for name in names:
            named[name].grad += 0.5 * (named[name] - base[name])

    found = update(Adversaries(), CorrectionRequest("prox", {"mu": 0.5}))
    np.testing.assert_array_equal(found.delta, update(Adversaries(pull)).delta)
    assert found.steps == 12


def test_clipping_takes_the_norm_of_the_step() -> None:
    def clip(names: Any, named: Any, _base: Any) -> None:
        nn.utils.clip_grad_norm_([named[name] for name in names], 0.05)

    found = update(Adversaries(), clip=0.05)
    np.testing.assert_allclose(found.delta, update(Adversaries(clip)).delta, atol=1e-6)
    assert np.abs(found.delta - update(Adversaries()).delta).max() > 1e-3, "it does something"


@pytest.mark.parametrize("bound", [0.0, 0.3])
def test_scaffold_takes_the_mean_over_the_steps_of_each_parameter(bound: float) -> None:
    chance = np.random.default_rng(2)
    common, own = (
        chance.normal(size=MANIFEST.values).astype(np.float32) * PARAMETERS * 0.1 for _ in range(2)
    )
    common, own = common.astype(np.float32), own.astype(np.float32)
    shift = by_name(common - own)

    def correct(names: Any, named: Any, _base: Any) -> None:
        length, added = (norm(some) for some in ([named[n].grad for n in names], [shift[n] for n in names]))
        scale = min(1.0, bound * length / added) if bound else 1.0
        for name in names:
            named[name].grad += scale * shift[name]

    request = CorrectionRequest("scaffold", {"bound": bound}, {"control": common}, {"control": own})
    train, by_hand = Adversaries(), Adversaries(correct)
    found = update(train, request)
    np.testing.assert_allclose(found.delta, update(by_hand).delta, atol=1e-5)
    kept = by_name(found.own["control"])
    for name, gradients in train.gradients.items():
        assert len(gradients) == (4 if name in SECOND else 8)
        mean = torch.stack(gradients).mean(dim=0)
        np.testing.assert_allclose(kept[name], mean, atol=1e-5)
    if bound == 0.0:  # option II of the paper, of each by its own number of steps
        change = by_name(found.delta)
        control = by_name(own - common)
        for name, gradients in train.gradients.items():
            option = control[name] - change[name] / (len(gradients) * LR)
            np.testing.assert_allclose(kept[name], option, atol=2e-5)
