"""``cifar10``: 32 × 32 colour pixels of 0 to 255, ten classes."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fl_edge.tasks.image import ImageTask
from fl_edge.tasks.pictures import preprocess_colour
from fl_edge.tasks.task import TrainingDefaults


class Cifar10Task(ImageTask):
    """Objects and animals in colour (Krizhevsky 2009); 878,538 parameters."""

    name = "cifar10"
    defaults = TrainingDefaults(lr=0.01)
    data_set = "cifar10"
    side = 32
    labels = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    mean = (125.3069, 122.9501, 113.8660)
    deviation = (62.9932, 62.0887, 66.7049)

    def network(self) -> nn.Module:
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(3, 32, 5),
                pool1=nn.MaxPool2d(2),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 64, 5),
                pool2=nn.MaxPool2d(2),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc1=nn.Linear(1600, 512),
                relu3=nn.ReLU(),
                fc2=nn.Linear(512, 10),
            )
        )

    def preprocess(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return preprocess_colour(pixels, self.side)
