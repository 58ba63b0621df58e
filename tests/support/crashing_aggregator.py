"""`fl-aggregator` that kills itself before effect number ``CRASH_BEFORE_EFFECT`` and names it in ``CRASH_REPORT``.

Run as a program. If the number exceeds the number of effects, it ends normally, and the report counts the effects.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from fl_aggregator import cli, runtime
from fl_aggregator import effects as do


class CrashingAggregator(runtime.Aggregator):
    """Never performs its n-th effect."""

    crash_before = int(os.environ["CRASH_BEFORE_EFFECT"])
    note = Path(os.environ["CRASH_REPORT"])
    performed = 0

    def _perform(self, effect: do.Effect) -> None:
        event = type(effect.event).__name__ if isinstance(effect, do.Record) else ""
        if CrashingAggregator.performed == self.crash_before:
            self.note.write_text(f"{CrashingAggregator.performed} {type(effect).__name__} {event}")
            os.kill(os.getpid(), signal.SIGKILL)
        CrashingAggregator.performed += 1
        self.note.write_text(f"{CrashingAggregator.performed} lives")
        super()._perform(effect)


runtime.Aggregator = CrashingAggregator  # type: ignore[misc]

if __name__ == "__main__":
    cli.main()
