"""Reads prediction requests in JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fl_edge.errors import PayloadError

MAX_NUMBER: Final = 1e300
"""The magnitude of a number in a request must be less, as JSON may have infinities and integers of any length."""


def json_object(payload: bytes, example: str) -> dict[str, Any]:
    """Returns the JSON object in a request. Raises ``PayloadError``, which shows ``example``."""
    try:
        request = json.loads(payload)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        text = payload[:40].decode(errors="replace")
        raise PayloadError(f"{text!r} is no JSON object, expected one such as {example}")
    return request


def steps_of(payload: bytes, columns: Sequence[str], steps: int) -> NDArray[np.float64]:
    """Returns the ``steps`` time steps in a request, with ``columns`` in this order: shape (steps, columns).

    Raises ``PayloadError`` naming the member, the row and the column.
    """
    request = json_object(
        payload, f'{{"values": [{[0.0] * len(columns)}, …]}}, a row for each of {steps} steps'
    )
    if unknown := sorted(request.keys() - {"columns", "values"}):
        raise PayloadError(f"{unknown[0]!r:.80} is unknown, expected: columns, values")
    given, rows = request.get("columns", list(columns)), request.get("values")
    if not isinstance(given, list) or sorted(map(str, given)) != sorted(columns):
        raise PayloadError(f"columns: {given!r:.80}, expected in any order: {', '.join(columns)}")
    if not isinstance(rows, list) or len(rows) != steps:
        found = f"{len(rows)} rows" if isinstance(rows, list) else repr(rows)
        raise PayloadError(f"values: {found:.80}, expected {steps} rows, one for each step of the window")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != len(given):
            raise PayloadError(
                f"values: row {number}: {row!r:.80}, expected {len(given)} numbers: {', '.join(given)}"
            )
        for name, value in zip(given, row, strict=True):
            if type(value) not in (int, float) or not abs(value) < MAX_NUMBER:
                raise PayloadError(
                    f"values: row {number}, column {name!r}: {value!r:.80} is no number, expected one"
                )
    return np.array(rows, np.float64)[:, [given.index(name) for name in columns]]
