"""The path of a new run."""

from __future__ import annotations

import re
from pathlib import Path

from fl_aggregator.storage.run_directory import new_run_path


def test_the_directory_of_a_run_has_no_colon(tmp_path: Path) -> None:
    path = new_run_path("package.evap:Evap", tmp_path)
    assert re.fullmatch(r"package\.evap\.Evap-\d{8}-\d{6}", path.name)
    path.mkdir()
    assert ":" not in new_run_path("package.evap:Evap", tmp_path).name
