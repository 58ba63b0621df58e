"""The entry points of installed distributions, by which others add tasks, corrections and parts of strategies."""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata


def entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    """Returns the entry points of ``group``. Imports none of them.

    Looking for them reads all installed distributions, so it is done once for each group and ``sys.path``.
    """
    return _found(group, tuple(sys.path))


@cache
def _found(group: str, _path: tuple[str, ...]) -> tuple[metadata.EntryPoint, ...]:
    return tuple(metadata.entry_points(group=group))
