"""``--precision bf16``: edges whose processor multiplies bf16 numbers train, others say what they lack."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from fl_edge.training.precision import has_bf16
from tests.support import programs

pytestmark = [pytest.mark.broker, pytest.mark.edge]

RUN = ("--task", "digits", "--clients", "2", "--rounds", "2", "--epochs", "1", "--precision", "bf16")


def test_a_run_in_bf16(tmp_path: Path) -> None:
    """Only torch knows what the processor can do, so that an edge says it in its second registration."""
    with programs.simulate(tmp_path, *RUN, "--wait", "15") as run:
        if has_bf16("cpu"):
            run.ends_well()
            assert len(programs.history(tmp_path)) == 2
        else:
            assert run.wait(90.0) == 1
            assert "the run needs bf16 (torch 2.11 or later, on a processor or GPU that" in run.output
