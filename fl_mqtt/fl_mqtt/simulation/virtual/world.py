"""The queue of events, and virtual time: it goes from one event to the next, and nothing waits for a clock."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

Action = Callable[[], None]


class World:
    """What will happen, in its order; ``now`` is in seconds. Two events at the same time keep their order.

    >>> world, seen = World(), []
    >>> world.at(2.0, lambda: seen.append(("b", world.now)))
    >>> world.at(1.0, lambda: world.after(0.5, lambda: seen.append(("a", world.now))))
    >>> while world.step():
    ...     pass
    >>> seen
    [('a', 1.5), ('b', 2.0)]
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.events = 0
        """How many have happened."""
        self._queue: list[tuple[float, int, Action]] = []
        self._order = itertools.count()

    def at(self, time: float, action: Action) -> None:
        """Lets ``action`` happen at ``time``, or now if that is over."""
        heapq.heappush(self._queue, (max(time, self.now), next(self._order), action))

    def after(self, seconds: float, action: Action) -> None:
        """Lets ``action`` happen in ``seconds``."""
        self.at(self.now + seconds, action)

    def step(self) -> bool:
        """Lets the next event happen; false if there is none."""
        if not self._queue:
            return False
        self.now, _, action = heapq.heappop(self._queue)
        self.events += 1
        action()
        return True
