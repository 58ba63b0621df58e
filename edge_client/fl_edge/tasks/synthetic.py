"""The names of ``synthetic-N``: N float32 parameters and no data, for measuring. Imports no torch."""

from __future__ import annotations

import re
from typing import Final

from fl_edge.errors import UnknownTaskError

NAME_PREFIX: Final = "synthetic-"
MAX_PARAMETERS: Final = 2**29
"""The number of values in the largest model that the programs accept (2 GiB)."""


def parameter_count(name: str) -> int | None:
    """Returns N of ``synthetic-N``, or None for another task. Raises ``UnknownTaskError`` for an invalid N."""
    if not name.startswith(NAME_PREFIX):
        return None
    number = name.removeprefix(NAME_PREFIX)
    if re.fullmatch(r"[1-9][0-9]{0,9}", number) is None or int(number) > MAX_PARAMETERS:
        raise UnknownTaskError(
            f"task {name!r}: expected synthetic-N with N parameters, 1 to {MAX_PARAMETERS}"
        )
    return int(number)
