"""What waits for the one thread of a fleet: bounded in bytes, whatever the broker sends."""

from __future__ import annotations

import queue
import threading
from typing import Final, Generic, TypeVar

from fl_shared.system.flood_control import Capacity

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
        self._waiting: queue.SimpleQueue[tuple[ItemT, int, Capacity | None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._room = Capacity(max_bytes)
        self._room_aside = Capacity(MAX_PREDICTION_BYTES, MAX_PREDICTION_REQUESTS)
        self._dropped = 0

    def put(self, item: ItemT, size: int | None = None, *, aside: bool = False) -> None:
        """Never blocks. ``size``: bytes of a message, which is dropped where there is no room for it, unless it is the
        only one; null for what happens here, which is never dropped (and takes no lock: a signal may interrupt one).

        ``aside``: it takes its room from that of its own kind.
        """
        if size is None:
            self._waiting.put((item, 0, None))
            return
        taken, room = size + OVERHEAD, self._room_aside if aside else self._room
        with self._lock:
            if not room.take(taken):
                self._dropped += 1
                return
        self._waiting.put((item, taken, room))

    def get(self, timeout: float) -> ItemT:
        """The next item. Raises ``queue.Empty`` after ``timeout`` seconds without one."""
        item, taken, room = self._waiting.get(timeout=timeout)
        if room is not None:
            with self._lock:
                room.release(taken)
        return item

    def pop_dropped(self) -> int:
        """How many messages found no room since this was asked before."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            return dropped
