"""Counts of classes in an edge's data, and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_shared.protocol.messages import MAX_CLASSES, Confusion

if TYPE_CHECKING:
    import torch

    from fl_edge.tasks.task import LocalData

DIGITS: Final = tuple("0123456789")
"""The labels of handwritten digits."""
MIN_FREQUENCY: Final = 1e-4
"""Of a class in a prior: that of an absent class must be finite."""
MAX_CONFUSION_BYTES: Final = 48 * 2**10
"""The most bytes of a confusion matrix in an evaluation, which has at most 64 KiB (protocol, 1.12)."""


def log_prior(labels: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Returns log p(y) of each class, shape (classes,), p its frequency in ``labels``, at least `MIN_FREQUENCY`.

    Added to the logits in training, it keeps a model from learning how rare a class is on one edge (Menon et al. 2021,
    arXiv:2007.07314, equation 10; for each edge by itself: Zhang et al. 2022, FedLC, arXiv:2209.00189).
    """
    counts = occurrences(labels, classes)
    return np.log(np.maximum(counts / len(labels), MIN_FREQUENCY)).astype(np.float32)


def count_labels(names: Sequence[str], data: LocalData) -> dict[str, int]:
    """Returns the number of examples of each class, with the holdout; empty if the classes have no names."""
    if not names:
        return {}
    labels = [data.train.labels] if data.holdout is None else [data.train.labels, data.holdout.labels]
    counts = sum(occurrences(one, len(names)) for one in labels)
    return {name: int(number) for name, number in zip(names, np.asarray(counts), strict=True)}


def occurrences(numbers: torch.Tensor | NDArray[Any], least: int) -> NDArray[np.int64]:
    """Returns how often each number from 0 on occurs in ``numbers``, shape (at least ``least``,)."""
    # NumPy counts only what is an index of the machine without a loss: on 32 bits no int64.
    return np.bincount(np.asarray(numbers).astype(np.intp), minlength=least).astype(np.int64)


def confusion_matrix(
    names: Sequence[str],
    labels: torch.Tensor | NDArray[np.int64],
    predictions: torch.Tensor | NDArray[np.int64],
) -> Confusion | None:
    """Returns the confusion matrix, or None if it is too large for a message.

    ``labels`` and ``predictions`` (the predicted labels): int64, shape (examples,), in the CPU's memory.
    """
    if not names or len(names) > MAX_CLASSES:
        return None
    classes = len(names)
    pairs = np.asarray(labels) * classes + np.asarray(predictions)
    counts = occurrences(pairs, classes**2).reshape(classes, classes)
    matrix = Confusion(labels=tuple(names), counts=tuple(tuple(row) for row in counts.tolist()))
    return matrix if len(matrix.model_dump_json()) <= MAX_CONFUSION_BYTES else None
