"""Values of settings that are more than a number or a name, as text and parsed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic import AfterValidator


def readable_by(parse: Callable[[str], object]) -> AfterValidator:
    """Keeps a text that ``parse`` reads, and refuses others with its message.

    The message begins without the setting and the value: `settings.parse_settings` names both.
    """

    def check(text: str) -> str:
        try:
            parse(text)
        except ValueError as error:
            raise ValueError(re.sub(rf"^(\w+ )?{re.escape(repr(text))}[:,] ", "", str(error))) from None
        return text

    return AfterValidator(check)


@dataclass(frozen=True, slots=True)
class Target:
    """The value of a metric at which a run ends."""

    metric: str
    value: float


def parse_target(text: str) -> Target:
    """Returns ``METRIC=VALUE`` as a target. Raises ``ValueError``."""
    name, separator, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not name or not separator or not math.isfinite(value):
        raise ValueError("expected METRIC=VALUE with a finite number, such as accuracy=0.95 or loss=0.2")
    return Target(name, value)


MAX_SERVED: Final = 100


def parse_serve(text: str) -> int:
    """Returns of how many versions the mean is served: 1 for ``newest``, K for ``average:K``. Raises ``ValueError``."""
    kind, separator, number = text.partition(":")
    if text == "newest":
        return 1
    if (
        kind == "average"
        and separator
        and number.isascii()
        and number.isdecimal()
        and 2 <= int(number) <= MAX_SERVED
    ):
        return int(number)
    raise ValueError(f"expected newest, or average:K with K from 2 to {MAX_SERVED}")
