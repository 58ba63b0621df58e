"""What to tell the author of a task about an error that the task's own code has raised, and where."""

from __future__ import annotations

import traceback
from pathlib import Path

from fl_shared.system.text import one_line


def error_text(error: BaseException, module: str = "") -> str:
    """Returns one line with the type, the message and the place of ``error`` (see `place_of`)."""
    message = message_of(error)
    kind = type(error).__name__
    return (kind if message == kind else f"{kind}: {message}") + place_of(error, module)


def message_of(error: BaseException) -> str:
    """Returns the message of ``error`` in one line, or the name of its type if it has none."""
    try:
        text = one_line(str(error))
    except Exception:  # a foreign class may raise any error
        text = ""
    return text or type(error).__name__


def place_of(error: BaseException, module: str = "") -> str:
    """Returns `` (FILE, line N)``, the last line of the task's own code that ``error`` passed; empty if there is none.

    The task's own code is the package of ``module``; without ``module``, the package of the task whose method was
    called. An error inside a library is thus told with the line that called the library.
    """
    from fl_edge.tasks.task import Task

    frames = list(traceback.walk_tb(error.__traceback__))
    if not module:
        callers = (type(frame.f_locals.get("self")) for frame, _ in frames)
        module = next((kind.__module__ for kind in callers if issubclass(kind, Task)), "")
    package = module.partition(".")[0]
    own = [
        (frame.f_code.co_filename, line)
        for frame, line in frames
        if package and str(frame.f_globals.get("__name__")).partition(".")[0] == package
    ]
    return f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""
