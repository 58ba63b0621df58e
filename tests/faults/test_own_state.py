"""With SCAFFOLD, what the edges keep stays in step with the aggregator, whichever side is killed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from fl_aggregator.storage.checkpoint import Checkpoints, read_arrays
from tests.support import programs
from tests.support.broker import Mosquitto
from tests.support.crashing_runs import events
from tests.support.killed_in_turns import killed_in_turns
from tests.support.wait import wait_until

pytestmark = [pytest.mark.broker, pytest.mark.long]

EDGES, ROUNDS = 8, 30
RUN = (
    "--task", "digits-mlp", "--strategy", "scaffold", "--clients", str(EDGES), "--per-round", "4",
    "--rounds", str(ROUNDS), "--epochs", "2", "--partition", "dirichlet:0.3", "--grace", "30", "--wait", "120",
)  # fmt: skip


def test_killed_on_either_side_the_control_is_the_mean_of_what_the_edges_keep(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    broker = Mosquitto(tmp_path / "broker")

    def edges() -> programs.Program:
        return programs.edges(tmp_path / "edges", broker.url, f"0-{EDGES - 1}", "--light")

    with contextlib.ExitStack() as stack:
        stack.callback(broker.stop)
        stack.enter_context(killed_in_turns(tmp_path, broker.url, RUN, edges, (2, 4, 6, 8)))
        # The last result reaches the edges after the run has ended.
        wait_until(lambda: difference(tmp_path) < 1e-5, 60, "the edges to keep what has counted")


def difference(directory: Path) -> float:
    """The largest difference of the aggregator's control to the mean of what the edges have kept."""
    control = read_arrays(Checkpoints(directory / "run").state_path(ROUNDS))[1]["control"]
    counted: dict[str, tuple[int, str]] = {}
    for one in events(directory):
        if one["event"] == "UpdateStored" and one["update"]["round"] > 0:
            counted[one["update"]["client"]] = one["update"]["examples"], one["update"]["digest"]
    total, examples = np.zeros(len(control)), 0
    for client, (count, digest) in counted.items():
        path = directory / "edges" / "state" / client / "own.safetensors"
        if not path.exists():
            return np.inf
        with safe_open(path, framework="numpy") as file:
            if json.loads(file.metadata()["state"])["digest"] != digest:
                return np.inf
            total += count * file.get_tensor("control").astype(np.float64)
        examples += count
    return float(np.abs(control - total / examples).max())
