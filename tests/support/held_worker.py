"""A training process whose trainings for one round last until they may end (`synthetic_run.Hold`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from fl_edge.training.executor import Executor, TrainedUpdate
from fl_edge.workers import worker
from tests.support.wait import wait_until

HELD: Final = "FL_TEST_HELD"
"""The variable with the path of a file that has the number of the round. They may end when it is gone."""

MOST: Final = 100.0
"""Seconds."""


class HeldExecutor:
    """An executor that waits before it trains for that round."""

    def __init__(self, executor: Executor, file: Path) -> None:
        self._executor = executor
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def train(self, *arguments: Any, **options: Any) -> TrainedUpdate:
        """See `Executor.train`: the round and whether it is cancelled are the fifth and the seventh argument."""
        number, cancelled = arguments[4], cast(Callable[[], bool], arguments[6])
        wait_until(lambda: not self._holds(number) or cancelled(), MOST, f"round {number} may be trained for")
        return self._executor.train(*arguments, **options)

    def _holds(self, number: int) -> bool:
        try:
            return int(self._file.read_text()) == number
        except FileNotFoundError:
            return False


def main() -> int:
    """Runs a worker (`fl_edge.workers.worker`)."""
    file = Path(os.environ[HELD])
    return worker.main(lambda executor: cast(Executor, HeldExecutor(executor, file)))


if __name__ == "__main__":
    sys.exit(main())
