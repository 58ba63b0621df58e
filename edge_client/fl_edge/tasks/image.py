"""The base classes of image classification tasks: of pictures from anywhere, and of one of the data sets."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from fl_edge.data import datasets
from fl_edge.data.partition import Indices
from fl_edge.data.parts import part_of
from fl_edge.tasks import classes
from fl_edge.tasks.answers import class_answer
from fl_edge.tasks.pictures import decode_picture
from fl_edge.tasks.sgd import batches, sgd
from fl_edge.tasks.survey import Columns, Surveyed
from fl_edge.tasks.task import Examples, LoadContext, LocalData, Metric, Scores, Task, TrainReport
from fl_shared.protocol.messages import TrainingSettings

EVALUATION_BATCH: Final = 128
"""Examples. Larger batches do not fit the cache: 10,000 images take 0.60 s at 128, 0.85 s at 1,000 (LeNet)."""

CHANNELS: Final = ("red", "green", "blue")


class PictureTask(Task):
    """A task that classifies pictures. Inputs: (examples, channels, height, width)."""

    metrics = (Metric("accuracy", unit="%", minimum=0.0, maximum=1.0),)
    mean: tuple[float, ...]
    """The mean of the training pixels for each channel, in the scale of the data set."""
    deviation: tuple[float, ...]
    """Their standard deviation."""
    side: int
    """Height and width of a picture, in pixels."""
    evaluation_batch = EVALUATION_BATCH

    @abstractmethod
    def preprocess(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns a picture of any size (`pictures.Picture`) in the size and style of the data set."""

    def train(
        self,
        model: nn.Module,
        data: LocalData,
        settings: TrainingSettings,
        seed: np.random.SeedSequence,
        cancelled: Callable[[], bool],
    ) -> TrainReport:
        return sgd(model, data.train, settings, seed, cancelled)

    def evaluate(self, model: nn.Module, examples: Examples) -> Scores:
        model.eval()
        device = next(model.parameters()).device
        inputs, labels = examples.tensors()
        loss, predictions = 0.0, []
        with torch.inference_mode():
            for batch in batches(len(examples), self.evaluation_batch):
                logits = model(inputs[batch].to(device))
                loss += float(functional.cross_entropy(logits, labels[batch].to(device), reduction="sum"))
                predictions.append(logits.argmax(1).cpu())
        predicted = torch.cat(predictions)
        correct = int((predicted == labels).sum())
        return Scores(
            len(examples),
            loss / len(examples),
            {"accuracy": correct / len(examples)},
            confusion=classes.confusion_matrix(self.labels, labels, predicted),
        )

    def predict(self, model: nn.Module, payload: bytes) -> Mapping[str, Any]:
        model.eval()
        pixels = self.preprocess(decode_picture(payload))
        device = next(model.parameters()).device
        with torch.inference_mode():
            logits = model(self._standardise(pixels.reshape(1, *pixels.shape[:2], -1)).to(device))
            return class_answer(self.labels, logits[0].double().softmax(0).tolist())

    def survey_columns(self) -> Columns:
        names = ("pixel",) if len(self.mean) == 1 else tuple(f"pixel.{name}" for name in CHANNELS)
        return Columns(self.labels, names)

    def survey(self, context: LoadContext) -> Surveyed:
        data = self.load(context).train
        inputs, labels = data.tensors()
        pixels = inputs.numpy()
        if inputs.is_floating_point():  # standardised
            mean, deviation = (np.array(one).reshape(1, -1, 1, 1) for one in (self.mean, self.deviation))
            pixels = np.rint(pixels * deviation + mean)
        names = self.survey_columns().numbers
        channels = {name: pixels[:, channel].reshape(-1) for channel, name in enumerate(names)}
        return Surveyed(len(data), labels, channels)

    def example_request(self) -> Any:
        pixel = [0] * len(self.mean) if len(self.mean) > 1 else 0
        return {"pixels": [[pixel] * self.side] * self.side}

    def example_input(self) -> torch.Tensor:
        blank = self.preprocess(np.zeros((32, 32), np.float32))
        return self._standardise(blank.reshape(1, *blank.shape[:2], -1))

    def _standardise(self, images: NDArray[np.uint8] | NDArray[np.float32]) -> torch.Tensor:
        """Returns images of the shape (examples, height, width, channels) as inputs, in channels-last memory format."""
        mean, deviation = np.array(self.mean, np.float32), np.array(self.deviation, np.float32)
        scaled: NDArray[np.float32] = (images.astype(np.float32) - mean) / deviation
        return torch.from_numpy(scaled).permute(0, 3, 1, 2)


class ImageTask(PictureTask):
    """A task on one of the sets of ``fl_edge.data.datasets``. Inputs: float32."""

    data_set: datasets.DataSetName

    @abstractmethod
    def network(self) -> nn.Module:
        """Returns the model, of convolutional and linear layers. Its weights are drawn afterwards."""

    def model(self, seed: int) -> nn.Module:
        network = self.network()
        initialize_weights(network, torch.Generator().manual_seed(seed))
        # Convolutions on a CPU are much faster so (LeNet, batch 32: 6.7 instead of 11.1 ms for a step).
        return network.to(memory_format=torch.channels_last)

    def load(self, context: LoadContext) -> LocalData:
        data = datasets.read(self.data_set, "train", context.data_dir)
        train, holdout = part_of(self.data_set, context.data_dir, context.partition)
        return LocalData(
            train=self._examples(data, train),
            holdout=self._examples(data, holdout) if len(holdout) else None,
        )

    def load_test(self, data_dir: Path | None) -> Examples:
        data = datasets.read(self.data_set, "test", data_dir)
        return self._examples(data, np.arange(len(data.labels), dtype=np.int64))

    def _examples(self, data: datasets.DataSet, selected: Indices) -> Examples:
        return Examples(self._standardise(data.images[selected]), torch.from_numpy(data.labels[selected]))


def initialize_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Draws PyTorch's default first weights for convolutional and linear layers from ``generator``."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
            bound = 1 / math.sqrt(layer.weight[0].numel())
            assert layer.bias is not None
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        else:
            assert not list(layer.parameters(recurse=False)), f"no initial weights for {layer}"
