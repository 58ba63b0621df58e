"""Words of others, for a log or a terminal: on one line, and with nothing in them that a terminal obeys."""

from __future__ import annotations

import re
from typing import Final

_NOT_PLAIN: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters (C0, DEL, C1), line and paragraph separators, changes of direction, lone surrogates."""


def one_line(text: str) -> str:
    """``text`` with a space for each character that ends a line, moves a cursor or turns the direction."""
    return _NOT_PLAIN.sub(" ", text)
