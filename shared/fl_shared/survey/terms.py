"""What a survey asks for, as members of the task's name that belong to the run (protocol, 2.4). Imports no NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import quote, unquote

from fl_shared.protocol.task_spec import SURVEY_LEAST, SURVEY_PRIVATE, SURVEY_RANGES, parse_task

FEWEST: Final = 2
"""Of one edge, a sum is what the edge has."""
_MOST: Final = 2.0**50
"""The greatest absolute value of a bound of a range."""
_YES: Final = "yes"


@dataclass(frozen=True, slots=True)
class SurveyTerms:
    """The terms of a survey. ``ranges``: of some columns, the values that everybody knows them to be between.

    ``private``: edges send `proportions`, and their sum gets noise.
    """

    least: int
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    private: bool = False

    @classmethod
    def of(cls, task: str) -> Self | None:
        """Returns the terms in a task's name; null if it is no survey. Raises ``ValueError`` that names the member."""
        given = parse_task(task)[1]
        if SURVEY_LEAST not in given:
            return None
        text = given[SURVEY_LEAST]
        if not text.isdecimal() or not FEWEST <= int(text[:9]) <= 10**8:
            raise ValueError(f"{SURVEY_LEAST}: {text[:20]!r}, expected a number of edges from {FEWEST} on")
        private = given.get(SURVEY_PRIVATE)
        if private not in (None, _YES):
            raise ValueError(f"{SURVEY_PRIVATE}: {private[:20]!r}, expected {_YES}")
        ranges = dict(map(_range_of, filter(None, given.get(SURVEY_RANGES, "").split(","))))
        return cls(int(text), ranges, private is not None)

    @property
    def members(self) -> dict[str, str]:
        """Returns them as members of a task's name."""
        texts = [
            f"{quote(name, safe='')}:{low!r}:{high!r}" for name, (low, high) in sorted(self.ranges.items())
        ]
        ranges = {SURVEY_RANGES: ",".join(texts)} if texts else {}
        return {SURVEY_LEAST: str(self.least)} | ranges | ({SURVEY_PRIVATE: _YES} if self.private else {})


def bounds_of(text: str) -> tuple[float, float] | None:
    """Returns the bounds of a range ``LOW:HIGH``; null if it is not one, or reaches too far."""
    try:
        low, high = map(float, text.split(":"))
    except ValueError:
        return None
    return (low, high) if -_MOST <= low < high <= _MOST else None


def _range_of(text: str) -> tuple[str, tuple[float, float]]:
    name, _, bounds = text.partition(":")
    found = bounds_of(bounds)
    if not name or found is None:
        raise ValueError(f"{SURVEY_RANGES}: {text[:80]!r}, expected COLUMN:LOW:HIGH with LOW below HIGH")
    return unquote(name), found
