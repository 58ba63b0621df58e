"""Metrics of classifiers and regressions, in NumPy. Each is NaN where it is undefined."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_edge.tasks.classes import occurrences

Labels = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


def macro_f1(labels: Labels, predicted: Labels, classes: int) -> float:
    """Returns the mean of the F1 scores of the classes that occur in ``labels`` or ``predicted``, shape (examples,)."""
    hits = occurrences(labels[labels == predicted], classes)
    both = occurrences(labels, classes) + occurrences(predicted, classes)
    return float((2 * hits[both > 0] / both[both > 0]).mean())


def auc(positive: NDArray[np.bool_], scores: Floats) -> float:
    """Returns the area under the ROC curve: the chance that a positive example has the higher score; ties count half.

    NaN unless there are positive and negative examples. Both have the shape (examples,).
    """
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # from 1; the mean rank of ties
    n, m = int(positive.sum()), int((~positive).sum())
    return float("nan") if not n or not m else float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def regression_scores(targets: Floats, predicted: Floats) -> dict[str, float]:
    """Returns the mean absolute error, the root of the mean squared error, and R². Both have the shape (examples,)."""
    errors = np.asarray(predicted, np.float64) - targets
    spread = float(np.square(targets - targets.mean()).sum())
    r2 = 1 - float(np.square(errors).sum()) / spread if spread else float("nan")
    return {
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt(np.square(errors).mean())),
        "r2": r2,
    }
