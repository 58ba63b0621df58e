"""Training in bf16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.builders import never, partition, training_settings

pytest.importorskip("torch")

import torch

from fl_edge.tasks.registry import load_task
from fl_edge.tasks.task import LoadContext
from fl_edge.training import local_training
from fl_edge.training.precision import arithmetic, has_bf16
from fl_edge.training.torch_executor import TorchExecutor
from fl_shared.protocol.abilities import BF16
from fl_shared.protocol.messages import Precision
from fl_shared.tensors.manifest import Vector

pytestmark = pytest.mark.edge


@pytest.mark.parametrize(
    ("capabilities", "multiplies"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"bf16": True, "neon": True}, True),
     ({"avx2": True, "avx512_bf16": False}, False), ({}, False)],
)  # fmt: skip
def test_only_an_edge_whose_processor_multiplies_bf16_numbers_offers_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], multiplies: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bf16("cpu") == multiplies
    assert (BF16 in TorchExecutor(load_task("digits"), None, "cpu").abilities()) == multiplies


def test_a_torch_that_cannot_tell_counts_as_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bf16("cpu")


def _trained(precision: Precision) -> tuple[Vector, float]:
    """Returns the delta of two epochs, and the accuracy of what they made of the first weights."""
    local_training.configure_torch()
    task = load_task("digits")
    manifest, weights = local_training.initial_weights(task, 0)
    data = task.load(LoadContext("0", partition(holdout=0.2), None))
    update = local_training.train_update(
        task, data, weights.copy(), manifest, training_settings(epochs=4, lr=0.05), 1, "0", never, precision=precision
    )  # fmt: skip
    assert data.holdout is not None
    scores = local_training.evaluate(task, weights + update.delta, manifest, data.holdout)
    return update.delta, scores.metrics["accuracy"]


def test_bf16_trains_as_well_as_float32_by_other_bits_and_repeats() -> None:
    exact, exact_accuracy = _trained("float32")
    delta, accuracy = _trained("bf16")
    again, _ = _trained("bf16")
    assert delta.dtype == np.float32
    assert delta.tobytes() == again.tobytes()
    error = float(np.linalg.norm(delta - exact) / np.linalg.norm(exact))
    assert 1e-4 < error < 0.1
    assert abs(accuracy - exact_accuracy) <= 0.05


def test_each_step_multiplies_the_weights_that_the_last_step_left() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    with arithmetic("bf16", "cpu"):
        torch.nn.init.constant_(layer.weight, 1.0)
        assert layer(torch.ones(1, 1)).item() == 1.0
        torch.nn.init.constant_(layer.weight, 2.0)
        assert layer(torch.ones(1, 1)).item() == 2.0
