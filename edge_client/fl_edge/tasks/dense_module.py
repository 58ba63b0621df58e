"""Dense models in torch (`dense.DenseLayers`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fl_edge.tasks.dense import INPUTS, LEAST_VARIANCE, STANDARDIZED_LIMIT, TARGETS, DenseLayers
from fl_edge.tasks.dense_network import DenseNetwork
from fl_edge.tasks.epochs import numpy_orders
from fl_edge.tasks.sgd import sgd
from fl_edge.tasks.task import Examples, TrainReport
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Vector


class Statistics(nn.Module):
    """The mean and the mean square of each of ``columns`` columns, as buffers."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.mean_square: torch.Tensor
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("mean_square", torch.ones(columns))

    def deviation(self) -> torch.Tensor:
        """Returns the standard deviations; 1 for a constant column."""
        variance = self.mean_square - self.mean * self.mean
        varies = variance > LEAST_VARIANCE * self.mean_square
        return torch.where(varies, variance, torch.ones_like(variance)).sqrt()

    def standardized(self, values: torch.Tensor) -> torch.Tensor:
        """Returns ``values`` standardised, shape (…, columns)."""
        return (values - self.mean) / self.deviation()


class DenseModule(nn.Module):
    """A dense model with the weights ``arrays``. Returns raw outputs in training, else outputs in units."""

    def __init__(self, layers: DenseLayers, arrays: Mapping[str, Vector]) -> None:
        super().__init__()
        self.layers = layers
        for number, (inputs, outputs) in enumerate(itertools.pairwise(layers.sizes), start=1):
            # On "meta" nothing is drawn from torch's global generator.
            self.add_module(f"fc{number}", nn.Linear(inputs, outputs, device="meta"))
        for name, columns in layers.standardized.items():
            self.add_module(name, Statistics(columns))
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.load_state_dict(tensors, strict=False, assign=True)
        # Not with register_buffer(), which takes no name with a dot, or that of an attribute.
        self._buffers |= {name: tensors[name] for name, _ in layers.buffers}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        values = self._standard_inputs(inputs)
        for layer in range(1, self.layers.depth + 1):
            values = self.get_submodule(f"fc{layer}")(values)
            if layer < self.layers.depth:
                values = functional.relu(values)
        name = {"squared": TARGETS, "reconstruction": INPUTS}.get(self.layers.loss)
        if self.training or name not in self.layers.standardized:
            return values
        statistics = self._statistics(str(name))
        return values * statistics.deviation() + statistics.mean

    def network(self) -> DenseNetwork:
        """Returns the same model in NumPy. Its arrays are views if this model is in the CPU's memory."""
        arrays = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        return DenseNetwork(self.layers, arrays)

    def set_buffers(self, buffers: Mapping[str, Vector]) -> None:
        """Replaces the values of buffers."""
        self.load_state_dict({n: torch.from_numpy(value) for n, value in buffers.items()}, strict=False)

    def fit(
        self,
        examples: Examples,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        """Trains by minibatch SGD, with the same minibatches as ``DenseNetwork.fit``."""
        inputs, targets = examples.tensors(next(self.parameters()).device)
        if self.layers.loss == "reconstruction":
            targets = self._standard_inputs(inputs)
        elif TARGETS in self.layers.standardized:
            targets = self._statistics(TARGETS).standardized(targets)
        loss_of = functional.cross_entropy if self.layers.loss == "cross-entropy" else functional.mse_loss
        return sgd(self, Examples(inputs, targets), settings, seed, cancelled, loss_of, numpy_orders(seed))

    def _statistics(self, name: str) -> Statistics:
        statistics = self.get_submodule(name)
        assert isinstance(statistics, Statistics)
        return statistics

    def _standard_inputs(self, inputs: torch.Tensor) -> torch.Tensor:
        if INPUTS not in self.layers.standardized:
            return inputs
        standard = self._statistics(INPUTS).standardized(inputs)
        return standard.clamp(-STANDARDIZED_LIMIT, STANDARDIZED_LIMIT).nan_to_num(nan=0.0)
