"""Watches the deadlines of jobs, on a thread of its own."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class Deadlines:
    """Calls ``on_late`` once with each job whose deadline passes. All other methods may be called on any thread.

    ``on_late`` may call `set` and `discard`; a job may have ended in the meantime.
    """

    def __init__(self, on_late: Callable[[int], None]) -> None:
        self._on_late = on_late
        self._changed = threading.Condition()
        self._at: dict[int, float] = {}
        """By job, on the monotonic clock."""
        self._wakes_at = -math.inf
        """When the thread looks at the deadlines again, unless it is woken."""
        self._closed = False
        threading.Thread(target=self._run, name="job-watch", daemon=True).start()

    def set(self, job: int, seconds: float) -> None:
        """Sets the deadline of a job, in place of an earlier one; infinity for none."""
        with self._changed:
            self._at[job] = at = time.monotonic() + seconds
            if at < self._wakes_at:
                self._changed.notify()

    def discard(self, job: int) -> None:
        """Forgets the deadline of a job, if it has one."""
        with self._changed:
            self._at.pop(job, None)

    def close(self) -> None:
        """Watches nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                due, now = min(self._at.values(), default=math.inf), time.monotonic()
                if self._closed:
                    return
                if due > now:
                    self._wakes_at = due
                    self._changed.wait(None if due == math.inf else due - now)
                    continue
                late = [job for job, at in self._at.items() if at <= now]
                for job in late:
                    del self._at[job]
            for job in late:
                self._on_late(job)
