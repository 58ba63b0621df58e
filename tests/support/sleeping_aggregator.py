"""`fl-aggregator` that stands still between two effects of a step: after it has published version 3."""

from __future__ import annotations

import os
import signal

from fl_aggregator.cli.main import main
from fl_aggregator.round import effects as do
from fl_aggregator.round.state import Run
from fl_aggregator.server import interpreter, runner


class SleepingInterpreter(interpreter.Interpreter):
    """Waits for SIGCONT before it returns."""

    def perform(self, effect: do.Effect, state: Run) -> None:
        super().perform(effect, state)
        if isinstance(effect, do.PublishModel) and effect.model.version == 3:
            os.kill(os.getpid(), signal.SIGSTOP)


runner.Interpreter = SleepingInterpreter  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
