"""Handles Ctrl-C, SIGTERM and SIGHUP (the terminal is gone): the first asks the program to end, the second ends it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from fl_shared.errors import INTERRUPTED

SHOW_CURSOR: Final = b"\x1b[?25h"
"""The escape sequence that shows the cursor again, which a live view may have hidden."""


def end_at_once() -> NoReturn:
    """Ends the program without cleaning up. Children end by themselves when their pipe or socket closes."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), SHOW_CURSOR)
    os._exit(INTERRUPTED)


def end_on_signals(on_first: Callable[[signal.Signals], None]) -> dict[signal.Signals, Any]:
    """Installs handlers that call ``on_first`` on the first of these signals, and end at once on the second.

    SIGHUP stays ignored under nohup. Returns the handlers that were installed before.
    """
    is_stopping = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal is_stopping
        if is_stopping:
            end_at_once()
        is_stopping = True
        on_first(signal.Signals(number))

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return {number: signal.signal(number, on_signal) for number in numbers}


def ignore_signals() -> None:
    """Ignores the signals that end a program, because it is ending."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def raise_interrupt(_number: signal.Signals) -> None:
    """Raises ``KeyboardInterrupt``, so that SIGTERM ends a program like Ctrl-C."""
    raise KeyboardInterrupt
