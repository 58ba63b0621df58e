"""How alike updates are of which some are the opposite of the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from fl_aggregator.aggregation.similarity import of_gram
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.monitoring.views.similarity_map import similarity_map
from fl_aggregator.round.events import Similarity


def compared(count: int, bad: int, name: str = "edge-{}") -> Similarity:
    """That of ``count`` updates, of which the first ``bad`` are the opposite of the others."""
    rows = 1 + np.random.default_rng(count).normal(size=(count, 500))
    rows[:bad] *= -1
    return of_gram([name.format(number) for number in range(count)], np.ones(count), rows @ rows.T)


def similarity(count: int, bad: int = 0) -> dict[str, Any]:
    """What ``fl/history`` says of them, as JSON."""
    made = similarity_map(
        RoundRecord(round=2, outcome="committed", version=2, similarity=compared(count, bad))
    )
    assert made is not None
    return made.model_dump(mode="json")
