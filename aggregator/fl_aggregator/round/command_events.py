"""Events of the operator's commands. ``answer_to``: see `Answer`; null if nobody is to be answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

AnswerTo = Annotated[object, Field(exclude=True)]
"""Who is answered. The machine passes it on unread, and the journal leaves it out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """The operator has asked to end the run early."""

    now: float
    reason: str
    answer_to: AnswerTo = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequested:
    """The operator has asked to begin pause ``number`` of the run, counted from 1; null: the next one."""

    now: float
    reason: str
    number: int | None = None
    answer_to: AnswerTo = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpauseRequested:
    """The operator has asked to end pause ``number`` of the run; null: the one that lasts."""

    now: float
    number: int | None = None
    answer_to: AnswerTo = field(default=None, compare=False, repr=False)
