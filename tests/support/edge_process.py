"""``fl-edge`` as a process that a test starts in its own directory: its log, its workers and its answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.received import Received

TEST_SPLIT = 359
"""A fifth of the 1797 digits; the parts are of the others."""
Start = Callable[..., programs.Process]


def log_of(tmp_path: Path, number: int = 0) -> str:
    return (tmp_path / f"edge-{number}.log").read_text()


def prediction(received: Received) -> m.Prediction:
    assert isinstance(received.message, m.Prediction)
    return received.message
