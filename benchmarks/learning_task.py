"""The networks of `learning.py`, as tasks: data, pictures and metrics are those of the built-in tasks."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fl_edge.data import datasets
from fl_edge.data.partition import Indices, hold_out, partitions
from fl_edge.tasks.cifar10 import Cifar10Task
from fl_edge.tasks.mnist import FashionMnistTask, MnistTask
from fl_edge.tasks.task import LoadContext, LocalData, Task
from fl_shared.protocol.messages import Partition

RARE: Final = (7, 8, 9)
"""The classes that only the first third of the edges has (`SlowThird`)."""


class SmallFashion(FashionMnistTask):
    """Fashion-MNIST with a CNN of 20,522 parameters, so that many cells can be run."""

    name = "small-fashion"

    def network(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(8, 16, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip


class SlowThird(SmallFashion):
    """Its natural parts: the classes `RARE` belong to the first third of the edges, which has no others.

    Within both groups, each class is divided by Dirichlet 0.5. With other schemes it is like `SmallFashion`.
    """

    name = "slow-third"

    def load(self, context: LoadContext) -> LocalData:
        if context.partition.scheme != "natural":
            return super().load(context)
        data = datasets.read(self.data_set, "train", context.data_dir)
        parts = divided_by_class(data.labels, context.partition)
        train, holdout = hold_out(parts[context.part], context.partition)
        return LocalData(
            train=self._examples(data, train),
            holdout=self._examples(data, holdout) if len(holdout) else None,
        )


def divided_by_class(labels: NDArray[np.int64], partition: Partition) -> list[Indices]:
    """Returns the natural parts of `SlowThird`."""
    (chosen,) = partitions(labels, partition.model_copy(update={"scheme": "own"}))
    is_rare, third = np.isin(labels[chosen], RARE), partition.count // 3
    groups = ((chosen[is_rare], third), (chosen[~is_rare], partition.count - third))
    own = {"scheme": "dirichlet:0.5", "examples": None}
    return [
        group[part]
        for group, count in groups
        for part in partitions(labels[group], partition.model_copy(update={**own, "count": count}))
    ]


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
    "small-fashion": SmallFashion, "slow-third": SlowThird, "mcmahan-mnist": McMahanMnist,
    "cifar10": Cifar10Task, "fashion-mnist": FashionMnistTask,
}  # fmt: skip
