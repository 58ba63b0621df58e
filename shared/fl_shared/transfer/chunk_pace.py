"""How fast chunks arrive, by which both receivers wait longer on a slow link before they ask again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

SLOW_LINK_FACTOR: Final = 3.0
"""On a slow link, a receiver waits at least this many times as long as the last chunks took."""


@dataclass(slots=True)
class ChunkPace:
    """The pace of one transfer. Chunks come one after the other. Times are seconds of the caller's clock."""

    last_at: float = -math.inf
    """When the last chunk came."""
    _interval: float = 0.0

    def came(self, asked_at: float, now: float) -> None:
        """Records a chunk: it has taken the time since it was asked for (-∞: never), or since the one before it."""
        since = max(self.last_at, asked_at)
        self._interval = max(self._interval / 2, now - since) if since > -math.inf else 0.0
        self.last_at = now

    @property
    def wait(self) -> float:
        """The seconds to wait for another chunk, at least."""
        return SLOW_LINK_FACTOR * self._interval
