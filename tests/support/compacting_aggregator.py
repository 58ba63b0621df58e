"""`fl-aggregator` that compacts its journal whenever this makes it much shorter, however short it is.

It kills itself after ``KILL_AFTER`` compactions. Run as a program. It never does if that is 0.
"""

from __future__ import annotations

import os
import signal
from functools import partial

from fl_aggregator.cli.main import main
from fl_aggregator.server import compaction, interpreter
from fl_aggregator.storage.run_directory import RunDirectory

compact_journal = RunDirectory.compact_journal
left = int(os.environ["KILL_AFTER"])


def compact_and_die(directory: RunDirectory, end: int, snapshot: str) -> None:
    global left
    compact_journal(directory, end, snapshot)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


RunDirectory.compact_journal = compact_and_die  # type: ignore[method-assign, assignment]
interpreter.JournalCompactor = partial(compaction.JournalCompactor, min_bytes=1)  # type: ignore[attr-defined, assignment]

if __name__ == "__main__":
    main()
