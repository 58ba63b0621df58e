"""Dense models in torch and in NumPy are one model: manifests, first weights, gradients and steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from fl_edge.errors import CancelledError, DivergedError
from fl_edge.tasks.dense import DenseLayers, Loss
from fl_edge.tasks.dense_module import DenseModule
from fl_edge.tasks.dense_network import DenseNetwork
from fl_edge.tasks.task import Examples
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import manifest_of

LOSSES: list[Loss] = ["cross-entropy", "squared", "reconstruction"]
KINDS = [DenseLayers((4, 7, 5, 4), loss, (("rounds", (2,)),)) for loss in LOSSES]


def examples(layers: DenseLayers, number: int = 50) -> Examples:
    """Columns of very different scales."""
    rng = np.random.default_rng(1)
    scales = np.array([1, 100, 0.01, 5])
    inputs = (rng.normal(size=(number, 4)) * scales + scales).astype(np.float32)
    inputs /= np.float32(100)
    if layers.loss == "cross-entropy":
        return Examples(inputs, rng.integers(0, 4, number))
    return Examples(inputs, rng.normal(3, 2, (number, 4)).astype(np.float32))


def pair(layers: DenseLayers) -> tuple[DenseModule, DenseNetwork]:
    module = layers.torch_module(3)
    network = DenseNetwork(layers, layers.first_weights(3))
    for model in (module, network):
        model.set_buffers({"rounds": np.array([1, 2], np.float32)})
    return module, network


def settings(**values: Any) -> TrainingSettings:
    return TrainingSettings(**{"epochs": 2, "batch_size": 8, "lr": 0.05, "momentum": 0.9, "seed": 5} | values)


@pytest.mark.parametrize("layers", KINDS, ids=str)
def test_manifest_and_first_weights_are_those_of_the_module(layers: DenseLayers) -> None:
    module = layers.torch_module(11)
    state = {name: value.numpy() for name, value in module.state_dict().items()}
    buffers = [name for name, _ in module.named_buffers()]
    assert manifest_of(state, buffers).digest == layers.manifest.digest
    for name, array in layers.first_weights(11).items():
        np.testing.assert_array_equal(state[name], array)


def test_first_weights_have_pytorchs_distribution() -> None:
    weights = DenseLayers((100, 400, 3)).first_weights(0)
    reference = torch.nn.Linear(100, 400)
    for name, theirs in (("fc1.weight", reference.weight), ("fc1.bias", reference.bias)):
        assert weights[name].dtype == np.float32
        assert float(np.abs(weights[name]).max()) <= 0.1
        assert float(weights[name].std()) == pytest.approx(float(theirs.detach().std()), rel=0.1)
    assert not np.array_equal(
        weights["fc1.weight"], DenseLayers((100, 400, 3)).first_weights(1)["fc1.weight"]
    )


@pytest.mark.parametrize("layers", KINDS, ids=str)
def test_gradients_are_those_of_autograd(layers: DenseLayers) -> None:
    module, network = pair(layers)
    data = examples(layers)
    inputs, labels = data.tensors()
    targets = labels
    if layers.loss != "cross-entropy":
        targets = torch.from_numpy(network._targets(data.inputs, data.labels))
    loss_of = functional.cross_entropy if layers.loss == "cross-entropy" else functional.mse_loss
    theirs = loss_of(module.train()(inputs), targets)
    theirs.backward()  # type: ignore[no-untyped-call]
    loss, gradients = network.gradients(data.inputs, data.labels)
    assert loss == pytest.approx(theirs.item(), rel=1e-5)
    assert float(network.losses(network.raw_outputs(data.inputs), data).mean()) == pytest.approx(
        loss, rel=1e-5
    )
    assert set(gradients) == {name for name, _ in module.named_parameters()}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None
        np.testing.assert_allclose(gradients[name], parameter.grad.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layers", KINDS, ids=str)
def test_gradients_are_finite_differences(layers: DenseLayers) -> None:
    _, network = pair(layers)
    data = examples(layers)
    network.arrays = {name: value.astype(np.float64) for name, value in network.arrays.items()}
    _, gradients = network.gradients(data.inputs.astype(np.float64), data.labels)
    for name, gradient in gradients.items():
        array, step = network.arrays[name], 1e-6
        index = tuple(np.array(array.shape) // 2)
        losses = []
        for sign in (1, -1):
            array[index] += sign * step
            losses.append(network.gradients(data.inputs.astype(np.float64), data.labels)[0])
            array[index] -= sign * step
        assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(
            float(gradient[index]), rel=1e-3, abs=1e-6
        )


@pytest.mark.parametrize("layers", KINDS, ids=str)
@pytest.mark.parametrize(
    ("values", "tolerance"), [({"epochs": 1, "batch_size": 50}, 1e-6), ({"epochs": 3}, 1e-4)]
)
def test_training_is_that_of_torch(layers: DenseLayers, values: dict[str, Any], tolerance: float) -> None:
    module, network = pair(layers)
    reports = [
        model.fit(examples(layers), settings(**values), np.random.SeedSequence(9), lambda: False)
        for model in (module, network)
    ]
    assert reports[0].steps == reports[1].steps
    assert reports[0].loss == pytest.approx(reports[1].loss, rel=1e-4)
    for name, value in module.network().arrays.items():
        np.testing.assert_allclose(network.arrays[name], value, atol=tolerance, rtol=0)
    inputs = examples(layers).inputs
    with torch.inference_mode():
        outputs = module.eval()(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(network.raw_outputs(inputs), outputs, rtol=1e-3, atol=1e-3)


def test_divergence_and_cancelling_end_the_training() -> None:
    layers = DenseLayers((4, 4), "squared")
    for model in pair(layers):
        with pytest.raises(DivergedError, match=r"of 5 \(lr 1e\+06"):
            model.fit(examples(layers), settings(lr=1e6, epochs=5), np.random.SeedSequence(0), lambda: False)
    for model in pair(layers):
        with pytest.raises(CancelledError):
            model.fit(examples(layers), settings(), np.random.SeedSequence(0), lambda: True)


def test_wrong_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two positive"):
        DenseLayers((3,))
    with pytest.raises(ValueError, match="as many outputs as inputs"):
        DenseLayers((3, 2), "reconstruction")
