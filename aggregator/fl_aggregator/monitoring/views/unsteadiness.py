"""Warns of a run whose versions differ widely, since each is drawn to what its own cohort has.

The numbers separate the runs of ``docs/learning.md``: FedAvg is warned at Dirichlet 0.1 and with two classes an edge,
where a mean of versions gains most, and no strategy is where edges are alike.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.round.state import Summary

LOG: Final = logging.getLogger(__name__)
VERSIONS: Final = 10
"""So many changes from one evaluated version to the next are looked at."""
FALL: Final = 0.03
"""What counts as a fall, as a share of the metric's range."""
FALLS: Final = 3


class UnsteadyVersions:
    """Says once that the primary metric falls again and again, and what helps. Not if a mean of versions is served."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._version = 0
        self._values: deque[float] = deque(maxlen=VERSIONS + 1)
        self._is_over = settings.versions_served > 1

    def restore(self, records: Iterable[RoundRecord]) -> None:
        """Takes the rounds of a run that is resumed. What was said of them is not said again."""
        for record in records:
            self._is_over |= record.version is not None and self._falls(record, record.version) is not None

    def log(self, summary: Summary) -> None:
        """Must be called with each summary, also with one that is published again with its evaluation."""
        if self._is_over or summary.model is None:
            return
        fall = self._falls(summary, summary.model.version)
        if fall is None:
            return
        self._is_over = True
        helps = ["--serve average:5", "a smaller --lr"]
        if not self._settings.logit_adjustment:
            helps.insert(1, "--logit-adjustment 1 (classifiers)")
        LOG.warning(
            "version %d: %s became worse by %g or more %d times in the last %d evaluated versions: the edges' data "
            "differ widely, their steps are too long, or some send bad updates (--similarity 5 shows who is unlike the "
            "others); in a new run, try %s or %s",
            summary.model.version, summary.declared[0].name, fall, FALLS, len(self._values),
            ", ".join(helps[:-1]), helps[-1],
        )  # fmt: skip

    def _falls(self, ended: Summary | RoundRecord, version: int) -> float | None:
        """Returns what counts as a fall of the metric if there were too many; ``version``: that the round has made."""
        if ended.split != "test" or not ended.declared or version <= self._version:
            return None
        metric = ended.declared[0]
        value = ended.metrics.get(metric.name)
        if value is None or metric.minimum is None or metric.maximum is None:
            return None
        self._version = version
        self._values.append(value if metric.higher_is_better else -value)
        least = FALL * (metric.maximum - metric.minimum)
        falls = [earlier - later for earlier, later in pairwise(self._values)]
        return least if sum(fall > least or math.isclose(fall, least) for fall in falls) >= FALLS else None
