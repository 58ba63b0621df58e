"""`fl-aggregator` that kills itself once before each kind of effect that ``DIES_BEFORE`` names.

A kind is a pattern of ``phase effect``, or of ``phase event`` for what is recorded; commas join them. The directory
``DEATHS`` gets a file for each death. Run as a program, again and again: a relay that resumes dies at the next kind.
"""

from __future__ import annotations

import os
import signal
from fnmatch import fnmatchcase
from pathlib import Path

from fl_aggregator.cli.main import main
from fl_aggregator.round import effects as do
from fl_aggregator.round.state import Run
from fl_aggregator.server import interpreter, runner


class DyingInterpreter(interpreter.Interpreter):
    """Dies instead of performing an effect."""

    deaths = Path(os.environ["DEATHS"])
    kinds = tuple(os.environ["DIES_BEFORE"].split(","))

    def perform(self, effect: do.Effect, state: Run) -> None:
        what = type(effect.event).__name__ if isinstance(effect, do.Record) else type(effect).__name__
        kind = f"{state.phase.name} {what}"
        note = self.deaths / kind
        if any(fnmatchcase(kind, pattern) for pattern in self.kinds) and not note.exists():
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        super().perform(effect, state)


runner.Interpreter = DyingInterpreter  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
