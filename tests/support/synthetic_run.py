"""A run of three edges on a synthetic task, which always makes the same model, and ways to hold it up."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fl_aggregator.storage import checkpoint
from fl_shared.protocol import messages as m
from tests.support import programs
from tests.support.client import Client
from tests.support.held_worker import HELD

TASK = "synthetic-3000000"
"""12 MB: offered and sent in chunks, and large enough that a transfer can be caught in the middle."""


def settings(rounds: int) -> tuple[str, ...]:
    """Settings of a run that selects all three edges in every round, so that its model is always the same."""
    return (
        "--task", TASK, "--clients", "3", "--per-round", "3", "--rounds", str(rounds), "--quorum", "3",
        "--grace", "30", "--wait", "120", "--holdout", "0",
    )  # fmt: skip


def trainings(*edges: programs.Program) -> dict[int, int]:
    """How often each round was trained for, by all these processes together."""
    rounds = [int(n) for edge in edges for n in re.findall(r"round (\d+): trained in", edge.err)]
    return {number: rounds.count(number) for number in sorted(set(rounds))}


def model_sha256(directory: Path) -> str:
    return checkpoint.model_sha256(directory / "run" / "model.safetensors")


class Hold:
    """Lets trainings for round ``number`` last until `release`, in edges that begin with its ``environment``.

    ``directory`` is for its file. Their training processes must be forked (`forked_children`).
    """

    def __init__(self, directory: Path, number: int) -> None:
        if not programs.FORKED:
            pytest.skip("training processes that can be held are forked, which they are on Linux")
        self._number = number
        self._file = directory / "held"
        directory.mkdir(parents=True, exist_ok=True)
        self._file.write_text(str(number))
        self.environment = {**os.environ, HELD: str(self._file)}

    def wait(self, observer: Client) -> None:
        """Waits until the round is open."""
        observer.wait_for_message(m.Selected, 40, round=self._number)

    def release(self) -> None:
        self._file.unlink()
