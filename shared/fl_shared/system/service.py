"""Reports a service's state to systemd (``sd_notify(3)``), if systemd has started this program."""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

from fl_shared.system.text import one_line

LOOK_INTERVAL: Final = 1.0
"""Seconds between two times at which the state is looked at, at least."""


class Service:
    """Reports to the service manager: the service is ready, what it does, its loop is running, it ends.

    ``environment`` has ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` if the manager wants to know. Belongs
    to one thread.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        is_meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        patience = float(environment.get("WATCHDOG_USEC", "0")) / 1e6 if is_meant and address else 0.0
        self._interval = patience / 2 if patience else math.inf
        self._look_at = -math.inf if address else math.inf
        self._said = ""
        self.due = -math.inf if patience else math.inf
        """When `turn` must be called next; ∞ without a watchdog."""

    def ready(self) -> None:
        """Says that the service has started."""
        self._send("READY=1")

    def turn(self, now: float, status: Callable[[], str]) -> None:
        """Reports that the loop is running, if there is a watchdog, and what the service does, if that has changed.

        ``now`` is in seconds on any clock. ``status`` returns one line, and is called at most once a second.
        """
        if now < self._look_at:
            return
        self._look_at = now + min(LOOK_INTERVAL, self._interval)
        lines = []
        if now >= self.due:
            self.due = now + self._interval
            lines.append("WATCHDOG=1")
        if (text := one_line(status())) != self._said:
            self._said = text
            lines.append(f"STATUS={text}")
        if lines:
            self._send("\n".join(lines))

    def stopping(self) -> None:
        """Says that the service ends."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # A manager that does not listen is told nothing: a service must not wait for its manager, nor end without it.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto(text.encode(), self._address)
