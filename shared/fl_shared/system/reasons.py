"""Reasons that several edges give, each once: edges whose reasons differ only in the names of files are one group."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from fl_shared.system.text import names_text, natural_order

FILE: Final = re.compile(r"[^\s:]*[./][^\s:]*(?=: )|[^\s:]*/[^\s:]*")
"""A path, or the name of a file before a colon."""

MAX_NAMED_REASONS: Final = 5


def reasons_text(edges: Mapping[str, str]) -> str:
    """Returns the names of ``edges``, together where their reasons are the same."""
    groups = by_reason((name, edges[name]) for name in natural_order(edges))
    return names_text([f"{names_text(names)} ({reason})" for names, reason in groups], MAX_NAMED_REASONS)


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
