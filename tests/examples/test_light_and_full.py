"""``examples/light-and-full``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import programs
from tests.support.wait import PATIENCE

pytestmark = [pytest.mark.broker, pytest.mark.edge]

SCRIPT = Path(__file__).parents[2] / "examples" / "light-and-full" / "run.py"


@pytest.mark.long
def test_light_and_full_edges_contribute_to_every_version(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, timeout=100 * PATIENCE
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "training without torch" in ended.stdout
    edges = ["full-0", "full-1", "light-0", "light-1"]
    assert re.findall(r"^(\S+): 10 updates of ", ended.stdout, re.MULTILINE) == edges
    lines = programs.history(tmp_path)
    assert [line["participants"] for line in lines] == [edges] * 10
    assert lines[-1]["metrics"]["accuracy"] > 0.9
