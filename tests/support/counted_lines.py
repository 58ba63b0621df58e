"""Counts the lines of Python that something takes: what it costs, on any machine and at any load."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines_of(action: Callable[[], object]) -> int:
    """How many lines ``action`` takes on this thread."""
    count = 0

    def trace(_frame: FrameType, kind: str, _argument: object) -> Any:
        nonlocal count
        count += kind == "line"
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(previous)
    return count
