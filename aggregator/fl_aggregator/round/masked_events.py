"""Events of rounds whose updates are masked. What a member has signed or opened was checked before it is an event."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fl_shared.protocol.messages import DeclineReason
from fl_shared.system.text import shortened

MAX_DECLINED_REASON: Final = 240
"""Characters of the reason why a member declines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """A member has signed the set of updates that is to be summed; ``signature``: base64url."""

    now: float
    client: str
    round: int
    closing: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """A member does not sign or open the set, and says why."""

    now: float
    client: str
    round: int
    reason: DeclineReason
    detail: str

    @property
    def text(self) -> str:
        """Why, not too long: part of it is the edge's own text."""
        return shortened(f"{self.reason}: {self.detail}", MAX_DECLINED_REASON)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharesArrived:
    """A member has opened its shares of the masks; ``digest``: of the shares. ``payload`` is the message."""

    now: float
    client: str
    session: str
    round: int
    digest: str
    payload: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharesKept:
    """The shares that a member has opened are in the spool."""

    now: float
    client: str
    session: str
    round: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskFailed:
    """The sum of a round stays masked. ``client``: who made it so, null if that is not known.

    ``final``: more shares would not help. ``short``: the shares of so many more members would, at the least.
    """

    now: float
    round: int
    client: str | None
    detail: str
    final: bool = False
    short: int = 1
