"""What a task tells of its data in a survey: its columns, and the values in them. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fl_shared.survey.layout import Columns

__all__ = ["Columns", "Surveyed"]


@dataclass(frozen=True, slots=True, eq=False)
class Surveyed:
    """Examples in the columns of a survey.

    ``labels``: the number of each example's class; empty if there are none. ``numbers``: by column, values, as many as
    there are (a picture has many), NaN where one is missing. ``categories``: by column, the number of each example's
    value, NaN where it is missing.
    """

    examples: int
    labels: Any = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    categories: Mapping[str, Any] = field(default_factory=dict)
