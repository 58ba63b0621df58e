"""How the deadline and the over-selection of rounds follow from what earlier rounds took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field

from fl_shared.cli.specification import make, split
from fl_shared.errors import UserError

PACE_METAVAR: Final = "fixed|auto[:FIELD=VALUE,…]"
FIXED: Final = "fixed"


@dataclass(frozen=True, slots=True)
class Pace:
    """A deadline is ``factor`` times what this ``quantile`` of the edges took in the last ``window`` rounds.

    It is never less than ``shortest`` seconds, unless ``--deadline`` is.
    """

    quantile: Annotated[float, Field(ge=0.5, le=0.99)] = 0.9
    factor: Annotated[float, Field(ge=1.1, le=10)] = 1.5
    window: Annotated[int, Field(ge=1, le=100)] = 5
    shortest: Annotated[float, Field(gt=0, le=1e8)] = 5.0


def parse_pace(text: str) -> Pace | None:
    """Returns what ``auto`` is given, null for ``fixed``. Raises ``UserError``."""
    if text == FIXED:
        return None
    name, fields = split("pace", text)
    if name != "auto":
        raise UserError(
            f"--pace {text!r}: expected fixed, or auto with any of its fields, such as auto:quantile=0.9,factor=1.5"
        )
    pace: Pace = make("pace", name, Pace, fields)
    return pace
