"""Ctrl-C and SIGTERM: the first one asks, the second one ends at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from fl_shared.errors import INTERRUPTED

SHOW_CURSOR: Final = b"\x1b[?25h"
"""What a live view has hidden, a terminal keeps hidden."""


def end_at_once() -> NoReturn:
    """Without another word or wait: children end by themselves, since their leash or socket does."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), SHOW_CURSOR)
    os._exit(INTERRUPTED)


def end_on_signals(first: Callable[[signal.Signals], None]) -> dict[signal.Signals, Any]:
    """``first`` is told of the first Ctrl-C or SIGTERM, the second one ends at once. Gives the handlers before."""
    asked = False

    def on_signal(number: int, _frame: object) -> None:
        nonlocal asked
        if asked:
            end_at_once()
        asked = True
        first(signal.Signals(number))

    return {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}


def raise_interrupt(_number: signal.Signals) -> None:
    raise KeyboardInterrupt
