"""`fl-aggregator` that is killed before its effect number ``DIES_BEFORE``; what that was stands in ``DEATH_NOTE``.

Run as a program. With N larger than the number of effects it lives, and the note says how many there were.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from fl_aggregator.cli.main import main
from fl_aggregator.round import effects as do
from fl_aggregator.round.state import Run
from fl_aggregator.server import aggregator, interpreter


class Mortal(interpreter.Interpreter):
    """Its n-th effect is never performed."""

    dies_before = int(os.environ["DIES_BEFORE"])
    note = Path(os.environ["DEATH_NOTE"])
    performed = 0

    def perform(self, effect: do.Effect, state: Run) -> None:
        event = type(effect.event).__name__ if isinstance(effect, do.Record) else ""
        if Mortal.performed == self.dies_before:
            self.note.write_text(f"{Mortal.performed} {type(effect).__name__} {event}")
            os.kill(os.getpid(), signal.SIGKILL)
        Mortal.performed += 1
        self.note.write_text(f"{Mortal.performed} lives")
        super().perform(effect, state)


aggregator.Interpreter = Mortal  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
