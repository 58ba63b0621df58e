"""Slow links, scaled down: nothing is sent twice, and the run ends with everybody (`benchmarks/slow_link.py`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.broker, pytest.mark.long]

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "slow_link.py"


@pytest.mark.parametrize(
    "link",
    [
        "--edges 2 --slow 1 --parameters 50000 --kbit 160 --delay 0.1 --loss 0.02",
        "--edges 2 --slow 2 --parameters 2500000 --kbit 10000",
    ],
    ids=["a message of 10 s", "grants of 8 s"],
)
def test_nothing_is_sent_twice(link: str) -> None:
    command = [sys.executable, str(SCRIPT), "--deadline", "300", *link.split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert [(one["outcome"], one["participants"]) for one in line["rounds"]] == [("committed", 2)]
    assert line["up"] < 1.2, line
    assert line["down"] < 1.2, line
