"""Dense models in torch (`dense.DenseLayers`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fl_edge.tasks.buffers import BufferedModule, add_buffers
from fl_edge.tasks.dense import DenseLayers
from fl_edge.tasks.dense_network import DenseNetwork
from fl_edge.tasks.epochs import numpy_orders
from fl_edge.tasks.sgd import sgd
from fl_edge.tasks.task import Examples, TrainReport
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Vector


class DenseModule(BufferedModule):
    """A dense model with the weights ``arrays``."""

    def __init__(self, layers: DenseLayers, arrays: Mapping[str, Vector]) -> None:
        super().__init__()
        self.layers = layers
        for number, (inputs, outputs) in enumerate(itertools.pairwise(layers.sizes), start=1):
            # On "meta" nothing is drawn from torch's global generator.
            self.add_module(f"fc{number}", nn.Linear(inputs, outputs, device="meta"))
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.load_state_dict(tensors, strict=False, assign=True)
        add_buffers(self, {name: tensors[name] for name, _ in layers.buffers})

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        values = inputs
        for layer in range(1, self.layers.depth + 1):
            values = self.get_submodule(f"fc{layer}")(values)
            if layer < self.layers.depth:
                values = functional.relu(values)
        return values

    def network(self) -> DenseNetwork:
        """Returns the same model in NumPy, with the same `arrays`."""
        return DenseNetwork(self.layers, self.arrays)

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
            targets = inputs
        loss_of = functional.cross_entropy if self.layers.loss == "cross-entropy" else functional.mse_loss
        return sgd(self, Examples(inputs, targets), settings, seed, cancelled, loss_of, numpy_orders(seed))
