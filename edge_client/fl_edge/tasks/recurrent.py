"""A recurrent network for windows of a series, in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fl_edge.tasks.buffers import BufferedModule, add_buffers
from fl_edge.tasks.sgd import sgd
from fl_edge.tasks.task import Examples, TrainReport
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Vector

EVALUATION_BATCH: Final = 256
"""Windows."""


class GruModule(BufferedModule):
    """A GRU that reads a window, and a linear layer that makes ``outputs`` values of its last state.

    Inputs: float32, shape (windows, steps × columns). ``buffers``: the names and shapes of further buffers, which are 0
    at first. What a task calls is as in ``dense_module.DenseModule``. The first weights come from torch's generator.
    """

    def __init__(
        self, columns: int, hidden: int, outputs: int, buffers: Mapping[str, tuple[int, ...]]
    ) -> None:
        super().__init__()
        self.gru = nn.GRU(columns, hidden, batch_first=True)
        self.out = nn.Linear(hidden, outputs)
        add_buffers(self, {name: torch.zeros(shape) for name, shape in buffers.items()})

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(inputs.reshape(len(inputs), -1, self.gru.input_size))
        outputs: torch.Tensor = self.out(states[:, -1])
        return outputs

    def network(self) -> GruModule:
        """Returns itself."""
        return self

    def fit(
        self,
        examples: Examples,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        """Trains by minibatch SGD on the squared error."""
        return sgd(self, examples, settings, seed, cancelled, functional.mse_loss)

    @torch.inference_mode()
    def raw_outputs(self, inputs: Vector) -> Vector:
        """Returns the outputs, shape (windows, outputs)."""
        self.eval()
        given = torch.from_numpy(inputs).to(self.out.weight.device)
        batches = range(0, len(given), EVALUATION_BATCH)
        outputs = torch.cat([self(given[start : start + EVALUATION_BATCH]) for start in batches])
        return np.asarray(outputs.cpu().numpy())
