"""Pauses the run while the disk is full; it continues by itself when there is space.

What found no space has left nothing behind, and is repeated then. Run time does not pass in a pause, so no
deadline does. The connections stay, messages that arrive are kept, and the status says why the run is paused.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.messaging.inbox import AdmittedMessage, ConnectionName, InboxItem, size_of
from fl_aggregator.round.events import StopRequested
from fl_aggregator.server.pauses import Pauses
from fl_aggregator.storage.disk_space import DiskFull, has_space

LOG: Final = logging.getLogger(__name__)

DISK_CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks for space."""
SPACE_MARGIN: Final = 2**16
"""Bytes that must be free in addition to what failed: the journal needs space as well, and pausing again
every second would help no one."""
MAX_DEFERRED_BYTES: Final = 64 * 2**20
"""Bytes of the updates that are kept in a pause. Others are dropped: edges repeat them until they are
answered."""

ResultT = TypeVar("ResultT")


class StoppedWhilePaused(Exception):
    """The run is to end in a pause, so its last event cannot be recorded."""

    def __init__(self, event: StopRequested) -> None:
        super().__init__(event.reason)
        self.event = event


class DiskPause:
    """Repeats what failed because the disk is full.

    It belongs to the loop's thread, which it blocks in a pause. ``get`` returns the next item that has arrived, or null
    after a number of seconds. ``notify`` is called at the beginning, at the
    end, and before each check for space. ``handle`` receives the items that cannot wait: it must not change the
    run's state, but may raise to end the run, and then the pause does not end.
    """

    def __init__(
        self,
        pauses: Pauses,
        get: Callable[[float], tuple[ConnectionName, InboxItem] | None],
        handle: Callable[[ConnectionName, InboxItem], None],
        notify: Callable[[], None],
    ) -> None:
        self._pauses = pauses
        self._get = get
        self._handle_urgent = handle
        self._on_event = notify
        self._began_at = 0.0
        self._deferred: deque[tuple[ConnectionName, InboxItem]] = deque()
        self._deferred_bytes = 0
        self.waits = False
        """Whether the run waits for space on the disk, so that nothing can be recorded."""

    def pop_deferred(self) -> tuple[ConnectionName, InboxItem] | None:
        """Returns the next item that came in a pause, to be handled before the inbox; null if none did."""
        if not self._deferred:
            return None
        connection_name, item = self._deferred.popleft()
        self._deferred_bytes -= size_of(item)
        return connection_name, item

    def attempt(self, action: Callable[[], ResultT]) -> ResultT:
        """Returns the result of ``action``, which is repeated in a pause while it raises ``DiskFull``."""
        try:
            return action()
        except DiskFull as error:
            disk_full = error
        self._begin(disk_full)
        while True:
            self._wait(disk_full)
            try:
                result = action()
            except DiskFull as error:
                disk_full = error
            except BaseException:
                self._end()
                raise
            else:
                self._end()
                return result

    def wait_for_space(self, disk_full: DiskFull) -> None:
        """Waits until there is space for what raised ``disk_full`` elsewhere, which may be at once."""
        if has_space(disk_full.directory, disk_full.needed_bytes + SPACE_MARGIN):
            return
        self._begin(disk_full)
        self._wait(disk_full)
        self._end()

    def _begin(self, disk_full: DiskFull) -> None:
        self._began_at, self.waits = time.monotonic(), True
        self._pauses.begin("disk", str(disk_full))
        LOG.warning("paused: %s; the run continues by itself when that is over", disk_full)
        self._on_event()

    def _end(self) -> None:
        self.waits = False
        self._pauses.end("disk")
        LOG.warning("continuing after a pause of %.0f s", time.monotonic() - self._began_at)
        self._on_event()

    def _wait(self, disk_full: DiskFull) -> None:
        self._pauses.begin("disk", str(disk_full))
        next_check = time.monotonic() + DISK_CHECK_INTERVAL
        while True:
            arrived = self._get(max(0.0, next_check - time.monotonic()))
            if arrived is not None:
                self._defer(*arrived)
            if time.monotonic() >= next_check:
                self._on_event()
                if has_space(disk_full.directory, disk_full.needed_bytes + SPACE_MARGIN):
                    return
                next_check = time.monotonic() + DISK_CHECK_INTERVAL

    def _defer(self, connection_name: ConnectionName, item: InboxItem) -> None:
        if isinstance(item, JobDone):
            self._deferred.append((connection_name, item))
        elif connection_name == "updates" and isinstance(item, AdmittedMessage):
            if self._deferred_bytes + size_of(item) <= MAX_DEFERRED_BYTES:
                self._deferred_bytes += size_of(item)
                self._deferred.append((connection_name, item))
        else:
            self._handle_urgent(connection_name, item)
