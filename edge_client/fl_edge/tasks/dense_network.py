"""Dense models in NumPy: outputs, losses, gradients and training. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_edge.errors import CancelledError
from fl_edge.tasks import steps as observed
from fl_edge.tasks.classes import log_prior
from fl_edge.tasks.dense import DenseLayers
from fl_edge.tasks.epochs import check_loss, numpy_orders
from fl_edge.tasks.task import Examples, TrainReport
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Vector

EVALUATION_BATCH: Final = 256
"""Examples, so that the activations of a large data set do not need much memory."""


class DenseNetwork:
    """A dense model with the weights ``arrays``, which `fit` and `set_buffers` replace or change in place.

    Inputs: float32, shape (examples, inputs). Labels: see `dense.Loss`.
    """

    def __init__(self, layers: DenseLayers, arrays: Mapping[str, Vector]) -> None:
        self.layers = layers
        self.arrays = dict(arrays)

    def network(self) -> DenseNetwork:
        """Returns itself, as ``DenseModule.network`` does for a model in torch."""
        return self

    def set_buffers(self, buffers: Mapping[str, Vector]) -> None:
        """Replaces buffers."""
        self.arrays |= buffers

    def raw_outputs(self, inputs: Vector) -> Vector:
        """Returns the outputs of the last layer, shape (examples, outputs)."""
        batches = [
            self._activations(inputs[start : start + EVALUATION_BATCH])[-1]
            for start in range(0, len(inputs), EVALUATION_BATCH)
        ]
        return np.concatenate(batches) if batches else np.empty((0, self.layers.sizes[-1]), np.float32)

    def probabilities(self, inputs: Vector) -> NDArray[np.float64]:
        """Returns a classifier's probabilities, shape (examples, classes)."""
        logits = self.raw_outputs(inputs).astype(np.float64)
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))

    def losses(self, outputs: Vector, examples: Examples) -> NDArray[np.float64]:
        """Returns the loss of each example, shape (examples,). ``outputs``: those for ``examples``."""
        targets = self._targets(np.asarray(examples.inputs), np.asarray(examples.labels))
        if self.layers.loss == "cross-entropy":
            logits = outputs.astype(np.float64)
            logits -= logits.max(axis=1, keepdims=True)
            total = np.log(np.exp(logits).sum(axis=1))
            return np.asarray(total - logits[np.arange(len(targets)), targets])
        return np.asarray(np.square(outputs - targets, dtype=np.float64).mean(axis=1))

    def gradients(self, inputs: Vector, labels: NDArray[Any]) -> tuple[float, dict[str, Vector]]:
        """Returns the mean loss over a minibatch, and its gradient for each weight."""
        return self._gradients(inputs, self._targets(inputs, labels))

    @np.errstate(over="ignore", invalid="ignore")  # a loss that is not finite ends the training
    def fit(
        self,
        examples: Examples,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        """Trains by minibatch SGD as `sgd.sgd` does, with the same minibatches as ``DenseModule.fit``."""
        all_inputs = np.asarray(examples.inputs)
        all_targets = self._targets(all_inputs, np.asarray(examples.labels))
        velocities: dict[str, Vector] = {}
        orders, steps, loss = numpy_orders(seed), 0, math.nan
        lr, momentum = np.float32(settings.lr), np.float32(settings.momentum)
        shift: Vector | float = 0.0
        if settings.logit_adjustment and self.layers.loss == "cross-entropy":
            shift = np.float32(settings.logit_adjustment) * log_prior(all_targets, self.layers.sizes[-1])
            observed.logits_adjusted()
        for epoch in range(settings.epochs):
            order, total = orders(len(examples)), 0.0
            for start in range(0, len(order), settings.batch_size):
                if cancelled():
                    raise CancelledError("training was cancelled")
                batch = order[start : start + settings.batch_size]
                step_loss, gradients = self._gradients(all_inputs[batch], all_targets[batch], shift)
                names = sorted(gradients)
                observed.before_step(
                    [self.arrays[name] for name in names], [gradients[name] for name in names]
                )
                for name, gradient in gradients.items():
                    change = gradient
                    if momentum and name in velocities:
                        change = velocities[name] * momentum + gradient
                    velocities[name] = change
                    self.arrays[name] = self.arrays[name] - lr * change
                total += step_loss * len(batch)
                steps += 1
            loss = total / len(examples)
            check_loss(loss, epoch, settings)
        return TrainReport(steps, loss)

    def _targets(self, inputs: Vector, labels: NDArray[Any]) -> NDArray[Any]:
        """Returns what the outputs are compared with."""
        return inputs if self.layers.loss == "reconstruction" else labels

    def _activations(self, inputs: Vector) -> list[Vector]:
        """Returns the inputs and each layer's outputs, the hidden ones after the rectifier."""
        activations = [inputs]
        for layer in range(1, self.layers.depth + 1):
            outputs = activations[-1] @ self.arrays[f"fc{layer}.weight"].T + self.arrays[f"fc{layer}.bias"]
            activations.append(outputs if layer == self.layers.depth else np.maximum(outputs, 0))
        return activations

    def _gradients(
        self, inputs: Vector, targets: NDArray[Any], shift: Vector | float = 0.0
    ) -> tuple[float, dict[str, Vector]]:
        """Returns loss and gradients. ``shift``: what is added to a classifier's logits, shape (classes,)."""
        activations = self._activations(inputs)
        raw = activations.pop()
        if self.layers.loss == "cross-entropy":
            rows = np.arange(len(raw)), targets
            logits = raw if isinstance(shift, float) else raw + shift
            logits = logits - logits.max(axis=1, keepdims=True)
            exponentials = np.exp(logits)
            sums = exponentials.sum(axis=1, keepdims=True)
            loss = float((np.log(sums[:, 0]) - logits[rows]).mean())
            error = exponentials / sums
            error[rows] -= 1
            error /= np.float32(len(raw))
        else:
            error = raw - targets
            loss = float(np.square(error).mean())
            error *= np.float32(2 / error.size)
        gradients: dict[str, Vector] = {}
        for layer in range(self.layers.depth, 0, -1):
            below = activations.pop()
            gradients[f"fc{layer}.weight"] = error.T @ below
            gradients[f"fc{layer}.bias"] = error.sum(axis=0)
            if layer > 1:
                error = (error @ self.arrays[f"fc{layer}.weight"]) * (below > 0)
        return loss, gradients
