"""Waiting with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE = 30.0
"""Seconds within which most conditions must become true."""
POLL_INTERVAL = 0.01
PATIENCE = 4
"""How many times slower than a quiet machine with two cores a machine may be. It multiplies the time-outs of tests;
a wait ends with its event, so this costs nothing."""


def wait_until(
    holds: Callable[[], T | None],
    timeout: float,
    what: str,
    *,
    changed: threading.Condition | None = None,
) -> T:
    """Returns the first true value of ``holds``; raises ``AssertionError`` after ``timeout`` seconds
    on a quiet machine (see `PATIENCE`).

    With ``changed``, ``holds`` is called under its lock whenever that is notified; otherwise every
    `POLL_INTERVAL`.
    """
    timeout *= PATIENCE
    if changed is not None:
        with changed:
            found = changed.wait_for(holds, timeout)
    else:
        deadline = time.monotonic() + timeout
        while not (found := holds()) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)
    assert found, f"not within {timeout:g} s: {what}"
    return found
