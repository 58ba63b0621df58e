"""``synthetic-N``: N float32 parameters and no data, for measuring brokers and the system itself. No torch in here."""

from __future__ import annotations

import re
from typing import Final

from fl_edge.errors import UnknownTaskError

NAME_PREFIX: Final = "synthetic-"
MAX_PARAMETERS: Final = 2**29
"""What makes the largest model that anybody takes (2 GiB)."""


def parameter_count(name: str) -> int | None:
    """N of ``synthetic-N``; null for other tasks. Raises ``UnknownTaskError`` for an N that cannot be."""
    if not name.startswith(NAME_PREFIX):
        return None
    number = name.removeprefix(NAME_PREFIX)
    if re.fullmatch(r"[1-9][0-9]{0,9}", number) is None or int(number) > MAX_PARAMETERS:
        raise UnknownTaskError(
            f"task {name!r}: expected synthetic-N with N parameters, 1 to {MAX_PARAMETERS}"
        )
    return int(number)
