"""The entry points of installed distributions, by which others add tasks, corrections and parts of strategies."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path


def entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    """Returns the entry points of ``group``. Imports none of them.

    Looking for them reads all installed distributions, so it is done once for each group and ``sys.path``.
    """
    return _found(group, tuple(sys.path))


def search_current_directory(others: Iterable[str] = ()) -> None:
    """Lets modules that a user names lie in the current directory, too, and in ``others``.

    They come last, so that no file there replaces a module of another package.
    """
    for place in (str(Path.cwd()), *others):
        if place not in sys.path:
            sys.path.append(place)


@cache
def _found(group: str, _path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=group))
