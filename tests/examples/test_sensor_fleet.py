"""``examples/sensor-fleet``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.wait import PATIENCE

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.long]

SCRIPT = Path(__file__).parents[2] / "examples" / "sensor-fleet" / "run.py"


def test_the_fleet_learns_what_is_usual_and_a_failing_pump_is_flagged(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, timeout=100 * PATIENCE
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "anomaly true" in ended.stdout
    lines = programs.history(tmp_path)
    errors = [line["metrics"]["reconstruction_error"] for line in lines]
    assert errors[-1] < 0.2 * errors[0], errors
    assert lines[-1]["metrics"]["after_flagged"] < 0.2
    request = json.loads((tmp_path / "failing.json").read_text())
    assert len(request["values"]) == 24
