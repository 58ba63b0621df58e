"""``examples/resnet18-head``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.wait import PATIENCE

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.long]

SCRIPT = Path(__file__).parents[2] / "examples" / "resnet18-head" / "run.py"


def test_the_head_of_a_frozen_resnet_learns_shapes_with_updates_of_a_few_kilobytes(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, timeout=110 * PATIENCE
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "the frozen layers of ResNet-18 have random weights" in ended.stderr
    lines = programs.history(tmp_path)
    assert lines[-1]["metrics"]["accuracy"] > 0.6, "a third is chance"
    assert all(line["bytes"]["up"] < 60_000 for line in lines), "of four edges"
