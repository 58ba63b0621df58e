"""``digits-mlp``: the data of ``digits`` with a dense model, which a light edge can train, too. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fl_edge.data import datasets
from fl_edge.data.parts import part_of
from fl_edge.tasks.answers import class_answer
from fl_edge.tasks.classes import DIGITS
from fl_edge.tasks.dense import DenseLayers, DenseTask
from fl_edge.tasks.pictures import decode_picture, preprocess_coarse_digit
from fl_edge.tasks.survey import Columns, Surveyed
from fl_edge.tasks.task import Examples, LoadContext, LocalData, Metric, TaskOptions

MEAN, DEVIATION = np.float32(4.8767), np.float32(6.0111)
"""Of the training pixels."""
_PIXELS: Final = 64


class DigitsMlpOptions(TaskOptions):
    """``hidden``: the number of hidden units; with 0 the model is linear."""

    hidden: Annotated[int, Field(ge=0, le=4096)] = 64


class DigitsMlpTask(DenseTask):
    """Small handwritten digits; a perceptron with one hidden layer, 4,810 parameters."""

    name = "digits-mlp"
    Options = DigitsMlpOptions
    labels = DIGITS
    metrics = (Metric("accuracy", unit="%", minimum=0.0, maximum=1.0),)

    def layers(self) -> DenseLayers:
        hidden = cast(DigitsMlpOptions, self.options).hidden
        return DenseLayers((_PIXELS, *([hidden] if hidden else []), len(DIGITS)))

    def load(self, context: LoadContext) -> LocalData:
        data = datasets.read("digits", "train", context.data_dir)
        train, holdout = part_of("digits", context.data_dir, context.partition)
        return LocalData(
            Examples(_inputs(data.images[train]), data.labels[train]),
            Examples(_inputs(data.images[holdout]), data.labels[holdout]) if len(holdout) else None,
        )

    def load_test(self, data_dir: Path | None) -> Examples:
        data = datasets.read("digits", "test", data_dir)
        return Examples(_inputs(data.images), data.labels)

    def survey_columns(self) -> Columns:
        return Columns(self.labels, ("pixel",))

    def survey(self, context: LoadContext) -> Surveyed:
        data = self.load(context).train
        pixels = np.rint(np.asarray(data.inputs) * DEVIATION + MEAN)
        return Surveyed(len(data), data.labels, {"pixel": pixels.reshape(-1)})

    def predict(self, model: Any, payload: bytes) -> Mapping[str, Any]:
        pixels = preprocess_coarse_digit(decode_picture(payload))
        return class_answer(self.labels, model.network().probabilities(_inputs(pixels[np.newaxis]))[0])

    def example_request(self) -> Any:
        return {"pixels": [[0] * 8] * 8}


def _inputs(images: NDArray[Any]) -> NDArray[np.float32]:
    return (images.reshape(len(images), _PIXELS).astype(np.float32) - MEAN) / DEVIATION
