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
from typing import TYPE_CHECKING, Any, Final, Literal

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

INPUTS: Final = "normalize"
TARGETS: Final = "target"
"""The names of what is standardised, in front of ``.mean`` and ``.mean_square``."""
LEAST_VARIANCE: Final = 1e-6
"""Of the mean square. A column with less is constant, as far as float32 can tell, and is divided by 1."""
STANDARDIZED_LIMIT: Final = 10.0
"""Standardised inputs are cut off there, so that a rare value does not make the training diverge."""


@dataclass(frozen=True)
class DenseLayers:
    """The layers of a dense model: ``sizes`` are the numbers of inputs, of hidden units, and of outputs.

    Rectifiers are between the layers. The arrays are ``fc1.weight`` (outputs, inputs), ``fc1.bias``, ``fc2.weight`` and
    so on. ``standardize``: inputs, and the targets of the loss ``squared``, are standardised with the buffers
    ``normalize.mean``, ``normalize.mean_square``, ``target.mean`` and ``target.mean_square``. ``buffers``: the names
    and shapes of further buffers, which are 0 at first. Raises ``ValueError``.
    """

    sizes: tuple[int, ...]
    loss: Loss = "cross-entropy"
    standardize: bool = False
    buffers: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes: {self.sizes}, expected at least two positive numbers")
        if self.loss == "reconstruction" and self.sizes[0] != self.sizes[-1]:
            raise ValueError(f"sizes: {self.sizes}, expected as many outputs as inputs for reconstruction")

    @classmethod
    def from_manifest(cls, manifest: Manifest, loss: Loss) -> DenseLayers:
        """Returns the layers that have ``manifest``. Raises ``ValueError`` if it is not that of a dense model."""
        shapes = {array.name: array.shape for array in manifest.arrays}
        weights: list[tuple[int, ...]] = []
        while (shape := shapes.get(f"fc{len(weights) + 1}.weight")) is not None and len(shape) == 2:
            weights.append(shape)
        if weights:
            sizes = (weights[0][1], *(shape[0] for shape in weights))
            layers = cls(sizes, loss, standardize=f"{INPUTS}.mean" in shapes)
            if layers.manifest == manifest:
                return layers
        raise ValueError(
            f"the received model is not a dense model for the loss {loss}: {', '.join(shapes):.200}"
        )

    @property
    def depth(self) -> int:
        """The number of layers with weights."""
        return len(self.sizes) - 1

    @property
    def standardized(self) -> dict[str, int]:
        """The numbers of columns of what is standardised, by name."""
        if not self.standardize:
            return {}
        return {INPUTS: self.sizes[0]} | ({TARGETS: self.sizes[-1]} if self.loss == "squared" else {})

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of the model."""
        arrays = self.first_weights(0)
        return manifest_of(arrays, buffers=[name for name in arrays if not name.startswith("fc")])

    def first_weights(self, seed: int) -> dict[str, Vector]:
        """Returns PyTorch's default first weights for linear layers: all uniform within ±1/√inputs.

        They are drawn by PCG64 from ``seed`` alone, each layer's weights before its bias. Nothing is standardised yet:
        the means are 0, the mean squares 1.
        """
        rng = np.random.Generator(np.random.PCG64(seed))
        arrays: dict[str, Vector] = {}
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(self.sizes), start=1):
            bound = np.float32(1 / math.sqrt(inputs))
            for name, shape in ((f"fc{layer}.weight", (outputs, inputs)), (f"fc{layer}.bias", (outputs,))):
                arrays[name] = (rng.random(shape, dtype=np.float32) * 2 - 1) * bound
        for name, columns in self.standardized.items():
            arrays[f"{name}.mean"] = np.zeros(columns, np.float32)
            arrays[f"{name}.mean_square"] = np.ones(columns, np.float32)
        return arrays | {name: np.zeros(shape, np.float32) for name, shape in self.buffers}

    def statistics(self, examples: Examples) -> dict[str, Vector]:
        """Returns the buffers for the columns of ``examples``, without missing values (NaN); none without examples."""
        if not len(examples):
            return {}
        columns = {INPUTS: examples.inputs, TARGETS: examples.labels}
        buffers: dict[str, Vector] = {}
        for name in self.standardized:
            values = np.asarray(columns[name], np.float64)
            there = ~np.isnan(values)
            number = np.maximum(there.sum(axis=0), 1)
            values = np.where(there, values, 0)
            buffers[f"{name}.mean"] = (values.sum(axis=0) / number).astype(np.float32)
            buffers[f"{name}.mean_square"] = (np.square(values).sum(axis=0) / number).astype(np.float32)
        return buffers

    def torch_module(self, seed: int) -> DenseModule:
        """Returns the model in torch, with first weights from ``seed``."""
        from fl_edge.tasks.dense_module import DenseModule

        return DenseModule(self, self.first_weights(seed))


class DenseTask(Task):
    """The base class of tasks whose model is dense. Inputs: float32 arrays of NumPy, shape (examples, inputs).

    A light edge can do them, if the task's module imports no torch. If inputs are standardised, a missing one (NaN)
    counts as the column's mean. In the first round each edge standardises with its own statistics, and later with those
    of the federation: each edge shares its own, and their average is the statistics of the round's examples.
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
        if model.network().is_unstandardized():
            model.set_buffers(model.layers.statistics(data.train))
        report: TrainReport = model.fit(data.train, settings, seed, cancelled)
        return report

    def finish(self, model: Any, data: LocalData) -> None:
        model.set_buffers(model.layers.statistics(data.train))

    def evaluate(self, model: Any, examples: Examples) -> Scores:
        network: DenseNetwork = model.network()
        raw = network.raw_outputs(np.asarray(examples.inputs))
        outputs = network.in_units(raw)
        return Scores(
            len(examples),
            float(network.losses(raw, examples).mean()),
            self.measure(outputs, examples),
            classes.confusion_matrix(self.labels, examples.labels, outputs.argmax(axis=1)),
        )

    def measure(self, outputs: Vector, examples: Examples) -> dict[str, float]:
        """Returns the metrics of the ``outputs`` for ``examples``: of a classifier the accuracy, else none.

        ``outputs``: shape (examples, outputs); logits of a classifier, else in the unit of the labels or inputs.
        """
        if not self.labels:
            return {}
        return {"accuracy": float((outputs.argmax(axis=1) == np.asarray(examples.labels)).mean())}
