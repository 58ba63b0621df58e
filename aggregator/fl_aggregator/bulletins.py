"""What the aggregator says for everybody to see: the status, who is missing, how each round ended, and the rest."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from fl_aggregator import translate
from fl_aggregator.for_watchers import ForWatchers
from fl_aggregator.links import Links
from fl_aggregator.monitoring.views import status
from fl_aggregator.refusals import Refusals
from fl_aggregator.resumption import RESULTS_RETAINED
from fl_aggregator.round.state import Run, Summary
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.envelope import Scope

STATUS_EVERY: Final = 5.0
STATUS_AT_MOST_EVERY: Final = 0.5


class Bulletins:
    """Counts the bytes of each round too, as they are part of its result."""

    def __init__(self, links: Links, scope: Scope, for_watchers: ForWatchers) -> None:
        self._links = links
        self._for_watchers = for_watchers
        self._scope = scope
        self._at = time.monotonic() - STATUS_EVERY
        self._of: Run | None = None
        self._paused: str | None = None
        self._before: dict[int, tuple[int, int]] = {}
        self._bytes: dict[int, tuple[int, int]] = {}
        self._results: deque[int] = deque()

    def status(
        self, state: Run, now: float, paused: str | None, refusals: Refusals, *, force: bool = False
    ) -> None:
        """On change, but at most twice a second, and every 5 s. ``now``: run time; ``paused``: why it stands still."""
        self._for_watchers.look(state, force=force)
        changed = state is not self._of
        since = time.monotonic() - self._at  # and not run time, which may stand still
        if (
            not force
            and paused == self._paused
            and since < (STATUS_AT_MOST_EVERY if changed else STATUS_EVERY)
        ):
            return
        self._at, self._of, self._paused = time.monotonic(), state, paused
        worst = refusals.worst(m.MAX_REFUSED_NAMED)
        self._links.retain(t.StatusTopic(), status.status(state, self._scope, now, paused, worst))
        missing = status.missing(state, self._scope, now)
        if missing is not None:
            self._links.retain(t.MissingTopic(missing.round), missing)

    def begin_round(self, number: int) -> bool:
        """Its bytes count from here; False if they do already."""
        if number in self._before:
            return False
        self._before = {number: (self._links.bytes_up, self._links.bytes_down)}
        return True

    def result(self, summary: Summary) -> None:
        """Retained; the oldest is cleared."""
        number = summary.round
        if number not in self._bytes:
            self._bytes[number] = self._counted(number)
        found = translate.result(summary, self._scope, *self._bytes[number])
        self._for_watchers.ended(summary, *self._bytes[number])
        self._links.retain(t.ResultTopic(number), found)
        if number not in self._results:
            self._results.append(number)
            if len(self._results) > RESULTS_RETAINED:
                self._links.clear(t.ResultTopic(self._results.popleft()))

    def _counted(self, number: int) -> tuple[int, int]:
        before = self._before.get(number)
        if before is None:
            # It ended in an earlier start of the aggregator, and may not be in the history yet.
            return self._for_watchers.bytes_of(number) or (0, 0)
        return self._links.bytes_up - before[0], self._links.bytes_down - before[1]

    def bytes_of(self, number: int) -> tuple[int, int]:
        """Up and down, of a round that has its result; asked once."""
        return self._bytes.pop(number, (0, 0))
