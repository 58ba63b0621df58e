"""One thread with one event loop for many sockets, and a few more for what would block it."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, Final

LOG = logging.getLogger(__name__)

MAX_CONNECT_THREADS: Final = 8
"""Threads that look names up and open TCP connections: neither can be done without waiting."""


class NetworkThread:
    """Calls run on the thread one after the other. One that raises does not end it: see `check`.

    A process made by ``fork`` has no such thread: start processes with ``spawn``.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.SelectorEventLoop()
        self._loop.set_exception_handler(lambda _, context: self.fail(_error_of(context)))
        self._failure: BaseException | None = None
        self._blocking_calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._connect_threads = 0
        # Daemons: a program that forgot to close its network, or whose name server hangs, ends all the same.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(self, call: Callable[[], None]) -> bool:
        """From any thread: ``call`` runs soon. False if the network is closed."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            return False
        return True

    def run_blocking(self, call: Callable[[], None]) -> None:
        """From the thread: ``call`` runs on another one, where it may block; it must not raise."""
        if self._connect_threads < MAX_CONNECT_THREADS:
            self._connect_threads += 1
            threading.Thread(
                target=self._run_blocking_calls, name=f"{self._thread.name}-opener", daemon=True
            ).start()
        self._blocking_calls.put(call)

    def call_later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """From the thread."""
        return self._loop.call_later(seconds, call)

    @property
    def loop(self) -> asyncio.SelectorEventLoop:
        return self._loop

    @property
    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def fail(self, error: BaseException) -> None:
        """Keeps the first error for `check`, and logs every one."""
        LOG.error("an error on the network thread", exc_info=error)
        if self._failure is None:
            self._failure = error

    def check(self) -> None:
        """Raises what went wrong on the thread, if anything did. It is a mistake of ours, not of a peer."""
        if self._failure is not None:
            raise self._failure

    def stop(self, timeout: float) -> None:
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
