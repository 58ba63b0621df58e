"""The errors that end threads of a fleet, whose work nobody would do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from fl_edge.runtime.open_files import is_out_of_files


@contextlib.contextmanager
def thread_failures() -> Iterator[Callable[[], None]]:
    """Yields a function that raises the first error that has ended a thread."""
    errors: list[BaseException] = []
    previous = threading.excepthook

    def keep(args: threading.ExceptHookArgs) -> None:
        if not is_out_of_files(args.exc_value):
            previous(args)
        if args.exc_value is not None:
            errors.append(args.exc_value)

    def check() -> None:
        if errors:
            raise errors[0]

    threading.excepthook = keep
    try:
        yield check
    finally:
        threading.excepthook = previous
