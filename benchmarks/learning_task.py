"""The networks of `learning.py`, as tasks: data, pictures and metrics are those of the built-in tasks."""

from __future__ import annotations

from typing import Final

from torch import nn

from fl_edge.tasks.cifar10 import Cifar10Task
from fl_edge.tasks.mnist import FashionMnistTask, MnistTask
from fl_edge.tasks.task import Task


class SmallFashion(FashionMnistTask):
    """Fashion-MNIST with a CNN of 20,522 parameters, so that many cells can be run."""

    name = "small-fashion"

    def network(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(8, 16, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip


class McMahanMnist(MnistTask):
    """MNIST with the CNN of McMahan et al. 2017 (arXiv:1602.05629, section 3): 1,663,370 parameters."""

    name = "mcmahan-mnist"

    def network(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 32, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(32, 64, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10),
        )  # fmt: skip


TASKS: Final[dict[str, type[Task]]] = {
    "small-fashion": SmallFashion, "mcmahan-mnist": McMahanMnist, "cifar10": Cifar10Task,
    "fashion-mnist": FashionMnistTask,
}  # fmt: skip
