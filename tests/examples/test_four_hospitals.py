"""``examples/four-hospitals``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tables import patients
from tests.support.wait import PATIENCE

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.long]


def test_four_hospitals_train_on_a_table_each(tmp_path: Path) -> None:
    for number, name in enumerate(("bern", "cleveland", "hungary", "long-beach")):
        table = patients(tmp_path / "data" / f"{name}.csv", number)
        table.write_text(table.read_text().replace("state", "disease"))
    environment = {**os.environ, "DATA": str(tmp_path / "data")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    ended = subprocess.run(
        [ROOT / "examples/four-hospitals/run.sh", "--run-dir", str(tmp_path / "run"), "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100 * PATIENCE,
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert (result["rounds"], result["primary"], result["split"]) == (15, "accuracy", "holdout")
    assert result["metrics"]["accuracy"] > 0.75, ended.stderr
