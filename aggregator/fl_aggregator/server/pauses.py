"""Why a run is paused, and its time, which stands still meanwhile.

There may be two causes at once: a full disk (`disk_pause`), and the operator (`round.pausing`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Cause = Literal["disk", "operator"]


class Pauses:
    """The pauses of a run. ``clock`` never stands still, and returns seconds.

    `reason` may be read on any thread; all else belongs to the loop's.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reasons: dict[Cause, str] = {}
        self._since = 0.0
        self._total = 0.0

    @property
    def reason(self) -> str | None:
        """Why the run is paused, in words; null if it is not."""
        return "; ".join(self._reasons.values()) or None

    def begin(self, cause: Cause, reason: str) -> None:
        """Begins a pause, or changes its reason."""
        if not self._reasons:
            self._since = self._clock()
        self._reasons = {**self._reasons, cause: reason}

    def end(self, cause: Cause) -> None:
        """Ends the pause for this cause, if it is one; another may last."""
        before, self._reasons = (
            self._reasons,
            {key: text for key, text in self._reasons.items() if key != cause},
        )
        if before and not self._reasons:
            self._total += self._clock() - self._since

    def without_pauses(self) -> float:
        """The seconds of the clock, minus those of all pauses so far."""
        return (self._since if self._reasons else self._clock()) - self._total
