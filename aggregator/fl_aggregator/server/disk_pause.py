"""The run stands still while the disk is full, and goes on by itself when there is room.

Whatever found no room left nothing behind, and is done again then. Meanwhile run time does not pass, so that no
deadline does; the connections stay, what is said to us is remembered, and whoever looks is told why nothing goes on.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.messaging.inbox import TICK, AdmittedMessage, ConnectionName, Inbox, InboxItem, size_of
from fl_aggregator.storage.disk_space import DiskFull, has_space

LOG: Final = logging.getLogger(__name__)

DISK_CHECK_INTERVAL: Final = 1.0
SPACE_MARGIN: Final = 2**16
"""Bytes that must be free beyond what failed: the journal writes beside it, and a pause a second says nothing."""
MAX_DEFERRED_BYTES: Final = 64 * 2**20
"""Of updates that come meanwhile. Others are dropped: they are sent again until they are answered."""

ResultT = TypeVar("ResultT")


class DiskPause:
    """Belongs to the loop's thread, which it holds while it waits. Meanwhile (a few times a second, and at both ends)
    ``tell`` is called, and ``take`` is given what arrives and cannot wait: it must not change the run's state, but
    may raise to end the run; the pause then stays as it is.
    """

    def __init__(
        self, inbox: Inbox, take: Callable[[ConnectionName, InboxItem], None], tell: Callable[[], None]
    ) -> None:
        self._inbox = inbox
        self._handle_urgent = take
        self._on_event = tell
        self._paused_since: float | None = None
        self._total_paused = 0.0
        self._deferred: deque[tuple[ConnectionName, InboxItem]] = deque()
        self._deferred_bytes = 0
        self.reason: str | None = None
        """In words, while there is a pause."""

    def without_pauses(self, at: float) -> float:
        """``at`` (seconds of a clock that does not stop) less the time of all pauses: it stands still in one."""
        return (at if self._paused_since is None else self._paused_since) - self._total_paused

    def pop_deferred(self) -> tuple[ConnectionName, InboxItem] | None:
        """What came in a pause and is to be taken now, before anything in the inbox."""
        if not self._deferred:
            return None
        lane, item = self._deferred.popleft()
        self._deferred_bytes -= size_of(item)
        return lane, item

    def attempt(self, action: Callable[[], ResultT]) -> ResultT:
        """What ``action`` gives. While it raises ``DiskFull`` the run is paused; it may be called many times."""
        try:
            return action()
        except DiskFull as error:
            full = error
        self._begin(full)
        while True:
            self._wait(full)
            try:
                result = action()
            except DiskFull as error:
                full = error
            except BaseException:
                self._end()
                raise
            else:
                self._end()
                return result

    def wait_for_space(self, full: DiskFull) -> None:
        """Returns when there is room for what raised ``full`` elsewhere, which may be at once."""
        if has_space(full.directory, full.needed_bytes + SPACE_MARGIN):
            return
        self._begin(full)
        self._wait(full)
        self._end()

    def _begin(self, full: DiskFull) -> None:
        self._paused_since = time.monotonic()
        self.reason = str(full)
        LOG.warning("paused: %s; the run continues by itself when there is space", full)
        self._on_event()

    def _end(self) -> None:
        assert self._paused_since is not None
        seconds = time.monotonic() - self._paused_since
        self._paused_since, self.reason = None, None
        self._total_paused += seconds
        LOG.warning("continuing after a pause of %.0f s", seconds)
        self._on_event()

    def _wait(self, full: DiskFull) -> None:
        self.reason = str(full)
        look = time.monotonic() + DISK_CHECK_INTERVAL
        while True:
            arrived = self._inbox.get(TICK)
            if arrived is not None:
                self._defer(*arrived)
            if time.monotonic() >= look:
                self._on_event()
                if has_space(full.directory, full.needed_bytes + SPACE_MARGIN):
                    return
                look = time.monotonic() + DISK_CHECK_INTERVAL

    def _defer(self, lane: ConnectionName, item: InboxItem) -> None:
        if isinstance(item, JobDone):
            self._deferred.append((lane, item))
        elif lane == "updates" and isinstance(item, AdmittedMessage):
            if self._deferred_bytes + size_of(item) <= MAX_DEFERRED_BYTES:
                self._deferred_bytes += size_of(item)
                self._deferred.append((lane, item))
        else:
            self._handle_urgent(lane, item)
