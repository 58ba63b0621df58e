"""Reasons that several edges give, each once: edges whose reasons differ only in the names of files are one group."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

FILE: Final = re.compile(r"[^\s:]*[./][^\s:]*(?=: )|[^\s:]*/[^\s:]*")
"""A path, or the name of a file before a colon."""


def by_reason(edges: Iterable[tuple[str, str | None]]) -> list[tuple[list[str], str | None]]:
    """Returns names and their reason, in the order of the first of each. ``…`` stands for files that differ."""
    groups: dict[str | None, list[tuple[str, str | None]]] = {}
    for name, reason in edges:
        key = None if reason is None else FILE.sub("…", reason)
        groups.setdefault(key, []).append((name, reason))
    return [
        ([name for name, _ in group], key if len({reason for _, reason in group}) > 1 else group[0][1])
        for key, group in groups.items()
    ]
