"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass

from fl_aggregator.round.state import Run


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's last state; ``seconds`` is its run time. ``real_seconds``: what a run in virtual time took, else null."""

    state: Run
    seconds: float
    real_seconds: float | None = None
