"""SCAFFOLD on the edge, against the paper's option II and against FedAvg."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.builders import never, partition, training_request

pytest.importorskip("torch")

import torch

from fl_edge.tasks.sgd import sgd
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.factory import executor_for
from fl_shared.tensors.manifest import Vector, unflatten
from tests.support.optimised_task import STEPS, OptimisedTask, first, update, with_optimizer

pytestmark = pytest.mark.edge

MANIFEST, BASE = first(OptimisedTask(with_optimizer(torch.optim.SGD)))
PARAMETERS = np.concatenate([np.full(spec.values, spec.role == "parameter") for spec in MANIFEST.arrays])
LR = 0.1
PLAIN = with_optimizer(lambda parameters: torch.optim.SGD(parameters, LR))
MOMENTUM = with_optimizer(lambda parameters: torch.optim.SGD(parameters, LR, momentum=0.9))


def scaffold(bound: float, common: Vector | None = None, own: Vector | None = None) -> CorrectionRequest:
    return CorrectionRequest(
        "scaffold",
        {"bound": bound},
        {} if common is None else {"control": common},
        {} if own is None else {"control": own},
    )


def drawn(seed: int, scale: float = 0.01) -> Vector:
    values: Vector = np.random.default_rng(seed).normal(size=MANIFEST.values).astype(np.float32)
    values *= np.float32(scale) * PARAMETERS
    return values


def test_its_first_round_is_fedavg_to_the_bit() -> None:
    for train in (PLAIN, MOMENTUM):
        found = update(train, scaffold(1.0, drawn(1)))
        np.testing.assert_array_equal(found.delta, update(train).delta)
        np.testing.assert_array_equal(found.sections["control"], found.own["control"])
        assert not found.own["control"][~PARAMETERS].any()


def test_with_plain_sgd_the_mean_gradient_is_option_ii() -> None:
    """cᵢ⁺ = cᵢ − c + (x − yᵢ) / (Kη)."""
    common, own = drawn(1), drawn(2)
    found = update(PLAIN, scaffold(0.0, common, own))
    option = own - common - found.delta / (STEPS * LR)
    difference = np.abs(found.own["control"] - option)[PARAMETERS].max()
    assert difference < 1e-5 * np.abs(option[PARAMETERS]).max()
    np.testing.assert_allclose(found.sections["control"], found.own["control"] - own, atol=1e-8)


def test_what_is_added_is_at_most_as_long_as_the_gradient() -> None:
    lengths: list[float] = []

    def watched(parameters):  # type: ignore[no-untyped-def]
        optimizer = torch.optim.SGD(parameters, LR)

        def after_hooks(o, _args, _kwargs):  # type: ignore[no-untyped-def]
            lengths.append(
                float(torch.nn.utils.get_total_norm([p.grad for g in o.param_groups for p in g["params"]]))
            )

        optimizer.register_step_post_hook(after_hooks)
        return optimizer

    train = with_optimizer(watched)
    huge = drawn(3, 1e6)
    update(train, scaffold(1.0, huge, drawn(2)))
    assert max(lengths) < 100, "at most twice the gradient, which is small"
    lengths.clear()
    update(train, scaffold(0.0, huge, drawn(2)))
    assert max(lengths) > 1e6


def test_a_control_of_zeros_corrects_by_what_the_edge_kept() -> None:
    own = drawn(2)
    without = update(PLAIN, scaffold(0.0, None, own))
    np.testing.assert_array_equal(without.delta, update(PLAIN, scaffold(0.0, 0 * own, own)).delta)
    assert not np.array_equal(without.delta, update(PLAIN).delta)


def test_the_own_descent_is_corrected_too() -> None:
    def own_descent(model, examples, settings):  # type: ignore[no-untyped-def]
        return sgd(model, examples, settings, np.random.SeedSequence(0), never).steps

    found = update(own_descent, scaffold(0.0, drawn(1), drawn(2)), lr=LR, momentum=0.0)
    option = drawn(2) - drawn(1) - found.delta / (found.steps * LR)
    assert np.abs(found.own["control"] - option)[PARAMETERS].max() < 1e-5


def test_light_and_full_edges_keep_the_same() -> None:
    full, light = (executor_for("digits-mlp", None, "cpu", light=light) for light in (False, True))
    taken: list[Vector] = []

    def new(values: int) -> Vector:
        taken.append(np.empty(values, np.float32))
        return taken[-1]

    manifest = full.initial_weights(7, new)
    base = taken[0]
    common, own = (
        (np.random.default_rng(seed).normal(size=len(base)) * 0.01).astype(np.float32) for seed in (1, 2)
    )
    one, other = (
        executor.train(
            base.copy(), manifest, partition(count=4, holdout=0.2), training_request(epochs=1), 1, "a",
            lambda: False, new, scaffold(1.0, common, own),
        )
        for executor in (full, light)
    )  # fmt: skip
    np.testing.assert_allclose(one.delta, other.delta, atol=1e-4)
    np.testing.assert_allclose(one.own["control"], other.own["control"], atol=1e-4)
    assert set(unflatten(one.sections["control"], manifest)) == {spec.name for spec in manifest.arrays}
