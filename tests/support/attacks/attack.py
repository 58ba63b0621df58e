"""One row of the table of attacks: what is tried, by whom, where it is refused, and what shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from tests.support.attacks.cluster import ALL, Cluster, Setup

Where = Literal["TLS", "ACL", "broker", "aggregator", "edge", "provision", "dashboard"]

UNKNOWN: Final = "(unknown)"


@dataclass(frozen=True, slots=True)
class Counted:
    """The aggregator's count of ``who`` in ``history.jsonl``: exactly this number, unless ``or_more``."""

    who: str
    reason: str
    times: int = 1
    or_more: bool = False

    def __str__(self) -> str:
        times = "" if self.times == 1 else f"{self.times} × "
        return f"{times}`{self.reason}` of `{self.who}`" + (" or more" if self.or_more else "")


@dataclass(frozen=True, slots=True)
class Logged:
    """Words in the log of honest edge 0."""

    words: str

    def __str__(self) -> str:
        return f"`{self.words}` in the edge's log"


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack. ``act`` makes it and checks that it is refused.

    ``seen`` is what others see of it, at the latest at the end of the run. ``shows``: what ``act`` itself
    sees, in words.
    """

    name: str
    who: str
    refused: Where
    act: Callable[[Cluster], None]
    seen: tuple[Counted | Logged, ...] = ()
    shows: str = ""
    setups: tuple[Setup, ...] = ALL

    def line(self) -> str:
        """Its line in docs/security.md."""
        seen = "; ".join([self.shows] * bool(self.shows) + [str(one) for one in self.seen])
        return _line(self.name, self.who, self.setups, self.refused, seen)


@dataclass(frozen=True, slots=True)
class CoveredElsewhere:
    """An attack that another test makes. ``test``: ``tests/….py::test_…``."""

    name: str
    who: str
    refused: Where
    seen: str
    setups: tuple[Setup, ...]
    test: str

    def line(self) -> str:
        """Its line in docs/security.md."""
        file, _, function = self.test.partition("::")
        name = function.removeprefix("test_").replace("_", " ")
        return f"{_line(self.name, self.who, self.setups, self.refused, self.seen)} [{name}](../{file}) |"


def _line(name: str, who: str, setups: tuple[Setup, ...], refused: Where, seen: str) -> str:
    return f"| {name} | {who} | {', '.join(setups)} | {refused} | {seen} |"
