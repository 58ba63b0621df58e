"""Text for a terminal or a log, some of which strangers have written."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` on one line: what could move a cursor, end a line or hide something is shown as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
