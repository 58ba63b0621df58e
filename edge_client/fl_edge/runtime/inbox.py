"""The inbox of a fleet's only loop, bounded in bytes, whatever the broker sends."""

from __future__ import annotations

import queue
import threading
from typing import Final, Generic, TypeVar

from fl_shared.system.flood_control import Capacity

MAX_INBOX_BYTES: Final = 256 * 2**20
"""Bytes of the messages that may wait. The requested chunks of a model are at most 16 MiB, all else is
small."""
MAX_PREDICTION_REQUESTS: Final = 256
"""Prediction requests that may wait. Any client may send them, so they have a limit of their own: they must
leave memory and time for the messages that a session needs."""
MAX_PREDICTION_BYTES: Final = 64 * 2**20
"""Bytes of the prediction requests that may wait."""
OVERHEAD: Final = 1024
"""Bytes that a message takes besides its payload, since many small messages fill the memory, too."""

ItemT = TypeVar("ItemT")


class Inbox(Generic[ItemT]):
    """A bounded queue that other threads and signal handlers fill, and that one thread empties."""

    def __init__(self, max_bytes: int = MAX_INBOX_BYTES) -> None:
        self._waiting: queue.SimpleQueue[tuple[ItemT, int, Capacity | None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._room = Capacity(max_bytes)
        self._room_aside = Capacity(MAX_PREDICTION_BYTES, MAX_PREDICTION_REQUESTS)
        self._dropped = 0

    def put(self, item: ItemT, size: int | None = None, *, is_prediction_request: bool = False) -> None:
        """Adds an item to the queue without ever blocking.

        ``size`` is a message's length in bytes. A message for which there is no room is dropped, unless it is
        the only one. With ``size`` ``None`` the item comes from this process: it is never dropped, and takes
        no lock, since a signal handler may have interrupted the thread that holds it. Prediction requests
        only take room from their own limit.
        """
        if size is None:
            self._waiting.put((item, 0, None))
            return
        charged_size, room = size + OVERHEAD, self._room_aside if is_prediction_request else self._room
        with self._lock:
            if not room.take(charged_size):
                self._dropped += 1
                return
        self._waiting.put((item, charged_size, room))

    def get(self, timeout: float) -> ItemT:
        """Returns the next item. Raises ``queue.Empty`` after ``timeout`` seconds without one."""
        item, charged_size, room = self._waiting.get(timeout=timeout)
        if room is not None:
            with self._lock:
                room.release(charged_size)
        return item

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return self._waiting.qsize()

    @property
    def has_dropped(self) -> bool:
        """Whether messages have been dropped since `pop_dropped` was last called."""
        return self._dropped > 0

    def pop_dropped(self) -> int:
        """Returns how many messages have been dropped since the last call."""
        with self._lock:
            dropped, self._dropped = self._dropped, 0
            return dropped
