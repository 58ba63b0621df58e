"""`fl-aggregator` that kills itself before effect number ``CRASH_BEFORE_EFFECT``.

It writes the effect's name to ``CRASH_REPORT``. Run as a program. If the number exceeds the number of
effects, it ends normally, and the report counts the effects.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from fl_aggregator.cli.main import main
from fl_aggregator.round import effects as do
from fl_aggregator.round.state import Run
from fl_aggregator.server import interpreter, runner


class CrashingInterpreter(interpreter.Interpreter):
    """Never performs its n-th effect."""

    crash_before = int(os.environ["CRASH_BEFORE_EFFECT"])
    note = Path(os.environ["CRASH_REPORT"])
    performed = 0

    def perform(self, effect: do.Effect, state: Run) -> None:
        event = type(effect.event).__name__ if isinstance(effect, do.Record) else ""
        if CrashingInterpreter.performed == self.crash_before:
            self.note.write_text(f"{CrashingInterpreter.performed} {type(effect).__name__} {event}")
            os.kill(os.getpid(), signal.SIGKILL)
        CrashingInterpreter.performed += 1
        self.note.write_text(f"{CrashingInterpreter.performed} lives")
        super().perform(effect, state)


runner.Interpreter = CrashingInterpreter  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
