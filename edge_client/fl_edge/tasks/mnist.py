"""``mnist`` and ``fashion-mnist``: 28 × 28 grey pixels of 0 to 255, ten classes."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fl_edge.tasks.classes import DIGITS
from fl_edge.tasks.image import ImageTask
from fl_edge.tasks.pictures import preprocess_digit, preprocess_garment
from fl_edge.tasks.task import TrainingDefaults


def lenet() -> nn.Module:
    """LeNet with 20 and 50 channels (as in Caffe's MNIST example): 431,080 parameters.

    The rectifier comes after the pooling: the same function, but on a quarter of the values.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, 5),
            pool1=nn.MaxPool2d(2),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(20, 50, 5),
            pool2=nn.MaxPool2d(2),
            relu2=nn.ReLU(),
            flatten=nn.Flatten(),
            fc1=nn.Linear(800, 500),
            relu3=nn.ReLU(),
            fc2=nn.Linear(500, 10),
        )
    )


class MnistTask(ImageTask):
    """Handwritten digits; 431,080 parameters."""

    name = "mnist"
    defaults = TrainingDefaults(lr=0.01)
    data_set = "mnist"
    side = 28
    labels = DIGITS
    mean = (33.3184,)
    deviation = (78.5675,)

    def network(self) -> nn.Module:
        return lenet()

    def preprocess(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return preprocess_digit(pixels)


class FashionMnistTask(ImageTask):
    """Garments (Xiao, Rasul and Vollgraf 2017); 431,080 parameters."""

    name = "fashion-mnist"
    defaults = TrainingDefaults(lr=0.01)
    data_set = "fashion-mnist"
    side = 28
    labels = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    mean = (72.9404,)
    deviation = (90.0212,)

    def network(self) -> nn.Module:
        return lenet()

    def preprocess(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        return preprocess_garment(pixels)
