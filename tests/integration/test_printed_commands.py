"""What the programs print to be pasted works as it is printed, also where only ``fl-mqtt`` is at hand."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.programs import BIN

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.long]


def test_the_hints_of_a_simulation_can_be_pasted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'fl-mqtt[report]'")
    path = ":".join(part for part in os.environ["PATH"].split(":") if Path(part) != BIN)
    (tmp_path / "my programs").mkdir()
    (tmp_path / "my programs" / "fl-mqtt").symlink_to(BIN / "fl-mqtt")

    def run(command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": path}
        return subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,
            check=False,
        )  # fmt: skip

    start = "--task synthetic-50 --clients 2 --rounds 1 --run-dir 'a run' --no-tensorboard"
    done = run(f"'my programs/fl-mqtt' simulate {start}")
    assert done.returncode == 0, done.stderr
    hints = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert hints["watch it"].startswith("'my programs/fl-mqtt' aggregator watch --broker mqtt://127.0.0.1:")
    assert hints["look at it"] == "'my programs/fl-mqtt' aggregator report 'a run'"
    looked = run(hints["look at it"])
    assert looked.returncode == 0, looked.stderr
    assert (tmp_path / "report.html").exists()
