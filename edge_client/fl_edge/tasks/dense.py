"""Dense models, which an edge with torch and a light edge train alike. Imports no torch.

`DenseLayers` says what a model consists of, and draws its first weights. `DenseTask` is the base class of tasks with
such a model. `dense_network.DenseNetwork` computes it in NumPy, `dense_module.DenseModule` in torch.
"""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fl_edge.tasks import classes
from fl_edge.tasks.task import Examples, LocalData, Scores, Task, TrainReport
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Manifest, Vector, manifest_of

if TYPE_CHECKING:
    from fl_edge.tasks.dense_module import DenseModule
    from fl_edge.tasks.dense_network import DenseNetwork

Loss = Literal["cross-entropy", "squared", "reconstruction"]
"""What is minimised: the cross-entropy of the softmax (labels: int64, shape (examples,)), the squared error to the
labels (float32, shape (examples, outputs)), or the squared error to the inputs (any labels). All are means over the
examples, and the squared errors also over the outputs."""


@dataclass(frozen=True)
class DenseLayers:
    """The layers of a dense model: ``sizes`` are the numbers of inputs, of hidden units, and of outputs.

    Rectifiers are between the layers. The arrays are ``fc1.weight`` (outputs, inputs), ``fc1.bias``, ``fc2.weight`` and
    so on. ``buffers``: the names and shapes of buffers, which are 0 at first. Raises ``ValueError``.
    """

    sizes: tuple[int, ...]
    loss: Loss = "cross-entropy"
    buffers: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes: {self.sizes}, expected at least two positive numbers")
        if self.loss == "reconstruction" and self.sizes[0] != self.sizes[-1]:
            raise ValueError(f"sizes: {self.sizes}, expected as many outputs as inputs for reconstruction")

    @property
    def depth(self) -> int:
        """The number of layers with weights."""
        return len(self.sizes) - 1

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of the model."""
        arrays = self.first_weights(0)
        return manifest_of(arrays, buffers=[name for name in arrays if not name.startswith("fc")])

    def first_weights(self, seed: int) -> dict[str, Vector]:
        """Returns PyTorch's default first weights for linear layers: all uniform within ±1/√inputs.

        They are drawn by PCG64 from ``seed`` alone, each layer's weights before its bias.
        """
        rng = np.random.Generator(np.random.PCG64(seed))
        arrays: dict[str, Vector] = {}
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(self.sizes), start=1):
            bound = np.float32(1 / math.sqrt(inputs))
            for name, shape in ((f"fc{layer}.weight", (outputs, inputs)), (f"fc{layer}.bias", (outputs,))):
                arrays[name] = (rng.random(shape, dtype=np.float32) * 2 - 1) * bound
        return arrays | {name: np.zeros(shape, np.float32) for name, shape in self.buffers}

    def torch_module(self, seed: int) -> DenseModule:
        """Returns the model in torch, with first weights from ``seed``."""
        from fl_edge.tasks.dense_module import DenseModule

        return DenseModule(self, self.first_weights(seed))


class DenseTask(Task):
    """The base class of tasks whose model is dense. Inputs: float32 arrays of NumPy, shape (examples, inputs).

    A light edge can do them, if the task's module imports no torch.
    """

    @abstractmethod
    def layers(self) -> DenseLayers:
        """Returns the layers of the model."""

    # Models are a DenseModule in torch, and a DenseNetwork on a light edge. Both have what is used here.

    def layers_for(self, manifest: Manifest) -> DenseLayers:  # noqa: ARG002
        """Returns the layers of a received model with ``manifest``, which a task without data may need to know."""
        return self.layers()

    def model(self, seed: int) -> DenseModule:
        return self.layers().torch_module(seed)

    def model_for(self, manifest: Manifest, seed: int) -> DenseModule:
        return self.layers_for(manifest).torch_module(seed)

    def train(
        self,
        model: Any,
        data: LocalData,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        report: TrainReport = model.fit(data.train, settings, seed, cancelled)
        return report

    def evaluate(self, model: Any, examples: Examples) -> Scores:
        network: DenseNetwork = model.network()
        outputs = network.raw_outputs(np.asarray(examples.inputs))
        return Scores(
            len(examples),
            float(network.losses(outputs, examples).mean()),
            self.measure(outputs, examples),
            classes.confusion_matrix(self.labels, examples.labels, outputs.argmax(axis=1)),
        )

    def measure(self, outputs: Vector, examples: Examples) -> dict[str, float]:
        """Returns the metrics of the ``outputs`` for ``examples``: of a classifier the accuracy, else none.

        ``outputs``: shape (examples, outputs).
        """
        if not self.labels:
            return {}
        return {"accuracy": float((outputs.argmax(axis=1) == np.asarray(examples.labels)).mean())}
