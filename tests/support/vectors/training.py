"""``training.json``: first weights of dense models, and their training by plain SGD on a few examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_edge.tasks.dense import DenseLayers
from fl_edge.tasks.dense_network import DenseNetwork
from fl_edge.tasks.task import Examples
from fl_edge.training.executor import edge_seed
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import flatten

INPUTS = np.asarray((np.arange(40) * 7 % 16) / 16, np.float32).reshape(10, 4)
LABELS = np.arange(10, dtype=np.int64) * 5 % 3
SETTINGS = TrainingSettings(epochs=2, batch_size=4, lr=0.5, momentum=0.5, seed=7)
ROUND, CLIENT = 3, "lab-a"


def vectors() -> dict[str, Any]:
    """A linear model and one with a hidden layer. Numbers are rounded; sums may differ in their last bits."""
    return {
        "inputs": INPUTS.tolist(),
        "labels": LABELS.tolist(),
        "settings": SETTINGS.model_dump(exclude={"logit_adjustment"}) | {"round": ROUND, "client": CLIENT},
        "models": [_model((4, 3)), _model((4, 5, 3))],
    }


def _model(sizes: tuple[int, ...]) -> dict[str, Any]:
    layers = DenseLayers(sizes)
    network = DenseNetwork(layers, layers.first_weights(SETTINGS.seed))
    first = flatten(network.arrays, layers.manifest)
    seed = edge_seed(SETTINGS.seed, ROUND, CLIENT)
    report = network.fit(Examples(INPUTS, LABELS), SETTINGS, seed, lambda: False)
    return {
        "sizes": list(sizes),
        "arrays": [[one.name, list(one.shape)] for one in layers.manifest.arrays],
        "first_weights": first.astype("<f4").tobytes().hex(),
        "steps": report.steps,
        "loss": _rounded(report.loss),
        "delta": [_rounded(value) for value in flatten(network.arrays, layers.manifest) - first],
    }


def _rounded(number: float) -> float:
    return round(float(number), 6)
