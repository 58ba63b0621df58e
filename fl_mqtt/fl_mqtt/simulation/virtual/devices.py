"""The devices of edges: how fast they are, on which link, and when they are there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from fl_mqtt.simulation.virtual.network import Link

FORWARD: Final = 1 / 3
"""The work of an evaluation beside that of a training, for each example: a backward pass costs two forward passes."""
TEST_SECONDS: Final = 1.0
"""An evaluation on the test split takes that long, however large it is: it is no edge's work."""


@dataclass(frozen=True, slots=True)
class Device:
    """``speed``: examples a second in training. ``drop``: the probability that it dies in a training."""

    speed: float
    link: Link
    drop: float = 0.0

    def training_seconds(self, examples: int, holdout: int, epochs: int) -> float:
        """Returns how long a training takes, with the evaluations on the holdout before and after it."""
        return (examples * epochs + 2 * holdout * FORWARD) / self.speed

    def evaluation_seconds(self, examples: int | None) -> float:
        """Returns how long an evaluation of ``examples`` takes; null: of the test split."""
        return TEST_SECONDS if examples is None else examples * FORWARD / self.speed


DATA_CENTRE: Final = Device(math.inf, Link(0.0, math.inf, math.inf))
"""Of the edge that only evaluates: it stands beside the aggregator."""
