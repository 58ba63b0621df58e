"""``digits``: the handwritten digits that ship with this package, 8 × 8 pixels of 0 to 16."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fl_edge.tasks.classes import DIGITS
from fl_edge.tasks.image import ImageTask
from fl_edge.tasks.pictures import preprocess_coarse_digit


class DigitsTask(ImageTask):
    """Small handwritten digits; 53,002 parameters."""

    name = "digits"
    data_set = "digits"
    side = 8
    labels = DIGITS
    mean = (4.8767,)
    deviation = (6.0111,)

    def network(self) -> nn.Module:
        return nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, 32, 3, padding=1),
                pool1=nn.MaxPool2d(2),
                relu1=nn.ReLU(),
                conv2=nn.Conv2d(32, 64, 3, padding=1),
                pool2=nn.MaxPool2d(2),
                relu2=nn.ReLU(),
                flatten=nn.Flatten(),
                fc1=nn.Linear(256, 128),
                relu3=nn.ReLU(),
                fc2=nn.Linear(128, 10),
            )
        )

    def preprocess(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return preprocess_coarse_digit(pixels)
