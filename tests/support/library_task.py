"""A task that a light edge trains in a moment: the sum of two numbers, with noise of the edge's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fl_edge.tasks.answers import number_answer
from fl_mqtt import DenseLayers, DenseTask, Examples, LoadContext, LocalData


class Sum(DenseTask):
    """Learns from 100 examples on each edge, and keeps 20."""

    def layers(self) -> DenseLayers:
        return DenseLayers((2, 8, 1), loss="squared")

    def load(self, context: LoadContext) -> LocalData:
        return LocalData(_examples(context.part, 100), _examples(context.part + 100, 20))

    def load_test(self, data_dir: Path | None) -> Examples:  # noqa: ARG002
        return _examples(1000, 50)

    def predict(self, model: Any, payload: bytes) -> Mapping[str, Any]:
        inputs = np.array([json.loads(payload)], np.float32)
        return number_answer(float(model.network().raw_outputs(inputs)[0, 0]), "l")


def _examples(seed: int, count: int) -> Examples:
    inputs = np.random.default_rng(seed).random((count, 2), np.float32)
    return Examples(inputs, inputs.sum(axis=1, keepdims=True))
