"""The tallies of a masked update: its numbers, of which others learn those of all members together (protocol, 10.5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from fl_edge.training.executor import TrainedUpdate
from fl_shared.masking.tallies import TALLIES
from fl_shared.protocol.messages import LOSS
from fl_shared.tensors.encodings.integers import Int64s

SCALE: Final = 2.0**20
"""What a sum is multiplied with before it is rounded; counts are not."""
MAX_SCORE: Final = 1000.0
"""The greatest magnitude of a loss or a metric: a greater one counts as this."""


def tallies_of(update: TrainedUpdate, primary: str) -> Int64s:
    """Returns the tallies, shape (8,). ``primary``: the name of the metric by which versions are compared.

    They are the numbers of examples and of holdout examples, Σ loss in training, on the holdout Σ loss and Σ primary
    metric before training and after it, and 0. What the edge does not have counts as 0.
    """
    metrics = update.metrics
    before, after = metrics.before or {}, metrics.after or {}
    holdout = int(after.get("examples", 0))
    train = _score(metrics.train or {}, LOSS.name)
    scores = [_score(found, name) for found in (before, after) for name in (LOSS.name, primary)]
    sums = [update.examples * train, *(holdout * score for score in scores)]
    found: Int64s = np.zeros(TALLIES, np.int64)
    found[:2] = update.examples, holdout
    found[2 : 2 + len(sums)] = [round(one * SCALE) for one in sums]
    return found


def _score(found: Mapping[str, float], name: str) -> float:
    least = 0.0 if name == LOSS.name else -MAX_SCORE
    return min(max(found.get(name, 0.0), least), MAX_SCORE)
