"""One thread with an event loop for many sockets, and a few more threads for calls that would block it."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

LOG = logging.getLogger(__name__)

MAX_CONNECT_THREADS: Final = 8
"""Threads that resolve host names and open TCP connections, which block."""


class NetworkThread:
    """A thread that runs calls one after the other. A call that raises does not end it: see `check`.

    A process made by ``fork`` does not have this thread: start processes with ``spawn``.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.SelectorEventLoop()
        self._loop.set_exception_handler(lambda _, context: self.fail(_error_of(context)))
        self._failure: BaseException | None = None
        self._blocking_calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._connect_threads = 0
        self._posted: deque[Callable[[], None]] = deque()
        self._is_woken = False
        # Daemons, so that a program ends even if it does not close its network, or its name server hangs.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(self, call: Callable[[], None]) -> bool:
        """Runs ``call`` on the network thread soon; may be called from any thread. False if it has ended."""
        if self._loop.is_closed():
            return False
        self._posted.append(call)
        if self._is_woken:
            return True
        self._is_woken = True
        try:
            self._loop.call_soon_threadsafe(self._run_posted)
        except RuntimeError:
            return False
        return True

    def _run_posted(self) -> None:
        """Runs what was posted before this call, for which the thread is woken once: that takes a system call."""
        self._is_woken = False  # first: what is posted from now on wakes it again
        for _ in range(len(self._posted)):
            try:
                self._posted.popleft()()
            except Exception as error:
                self.fail(error)

    def run_blocking(self, call: Callable[[], None]) -> None:
        """Runs ``call``, which may block but must not raise, on an opener's thread.

        Call this on the network thread.
        """
        if self._connect_threads < MAX_CONNECT_THREADS:
            self._connect_threads += 1
            threading.Thread(
                target=self._run_blocking_calls, name=f"{self._thread.name}-opener", daemon=True
            ).start()
        self._blocking_calls.put(call)

    def call_later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Runs ``call`` after ``seconds`` unless the handle is cancelled. Call it on the network thread."""
        return self._loop.call_later(seconds, call)

    @property
    def loop(self) -> asyncio.SelectorEventLoop:
        """The event loop of the thread; only the thread itself may use it."""
        return self._loop

    @property
    def is_current(self) -> bool:
        """Whether the caller is on the network thread."""
        return threading.current_thread() is self._thread

    def fail(self, error: BaseException) -> None:
        """Keeps the first error for `check`, and logs every one."""
        LOG.error("an error on the network thread", exc_info=error)
        if self._failure is None:
            self._failure = error

    def check(self) -> None:
        """Raises the first error on the thread, if any. It is a defect of this program, not of a peer."""
        if self._failure is not None:
            raise self._failure

    def stop(self, timeout: float) -> None:
        """Stops the event loop and waits at most ``timeout`` seconds for the thread to end."""
        for _ in range(self._connect_threads):
            self._blocking_calls.put(None)
        if self.post(self._loop.stop):
            self._thread.join(timeout)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            self._loop.close()

    def _run_blocking_calls(self) -> None:
        while (call := self._blocking_calls.get()) is not None:
            call()


def _error_of(context: dict[str, Any]) -> BaseException:
    error = context.get("exception")
    return error if isinstance(error, BaseException) else RuntimeError(str(context.get("message")))
