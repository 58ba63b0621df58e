"""What waits for the one thread of a fleet: bounded in bytes, whatever the broker sends."""

from __future__ import annotations

import queue
import threading
from typing import Final, Generic, TypeVar

MAX_INBOX_BYTES: Final = 256 * 2**20
"""Of messages that wait. A window of a model's chunks is 16 MiB; all else is small."""
MAX_PREDICTION_REQUESTS: Final = 256
"""Messages that come aside (requests for predictions, which anybody may send): they must leave room for what an edge
lives by, and time."""
MAX_PREDICTION_BYTES: Final = 64 * 2**20
OVERHEAD: Final = 1024
"""Bytes that a message takes besides its payload: many small ones fill the memory, too."""

ItemT = TypeVar("ItemT")


class Inbox(Generic[ItemT]):
    """Filled by other threads (and signal handlers), emptied by one."""

    def __init__(self, max_bytes: int = MAX_INBOX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._waiting: queue.SimpleQueue[tuple[ItemT, int, bool]] = queue.SimpleQueue()
        self._counting = threading.Lock()
        self._bytes = 0
        self._aside = 0
        self._aside_bytes = 0
        self._dropped = 0

    def put(self, item: ItemT, size: int | None = None, *, aside: bool = False) -> None:
        """Never blocks. ``size``: bytes of a message, which is dropped where there is no room for it, unless it is the
        only one; null for what happens here, which is never dropped (and takes no lock: a signal may interrupt one).

        ``aside``: it takes its room from that of its own kind.
        """
        taken = 0
        if size is not None:
            taken = size + OVERHEAD
            with self._counting:
                if not self._has_room(taken, aside):
                    self._dropped += 1
                    return
                self._count(taken, aside)
        self._waiting.put((item, taken, aside))

    def _has_room(self, taken: int, aside: bool) -> bool:
        if not aside:
            return not self._bytes or self._bytes + taken <= self._max_bytes
        fits = not self._aside or self._aside_bytes + taken <= MAX_PREDICTION_BYTES
        return fits and self._aside < MAX_PREDICTION_REQUESTS

    def _count(self, taken: int, aside: bool) -> None:
        if aside:
            self._aside += 1 if taken > 0 else -1
            self._aside_bytes += taken
        else:
            self._bytes += taken

    def get(self, timeout: float) -> ItemT:
        """The next item. Raises ``queue.Empty`` after ``timeout`` seconds without one."""
        item, taken, aside = self._waiting.get(timeout=timeout)
        if taken:
            with self._counting:
                self._count(-taken, aside)
        return item

    def take_dropped(self) -> int:
        """How many messages found no room since this was asked before."""
        with self._counting:
            dropped, self._dropped = self._dropped, 0
            return dropped
