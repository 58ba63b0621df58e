"""``examples/notebook.ipynb``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.wait import PATIENCE

pytestmark = [pytest.mark.broker, pytest.mark.edge, pytest.mark.long]

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    # As a kernel does: one cell after the other, all in __main__.
    run_cells = (
        "import json, sys\nfor cell in json.load(sys.stdin): exec(compile(cell, '<cell>', 'exec'), globals())"
    )
    done = subprocess.run(
        [sys.executable, "-c", run_cells],
        input=json.dumps(["".join(cell["source"]) for cell in cells]),
        cwd=tmp_path, capture_output=True, text=True, timeout=100 * PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "round 5: version 5 of 5, 3 of 3 in, mae 0." in done.stdout
    assert re.search(r"^0\.\d+ kWh on the test split$", done.stdout, re.MULTILINE)
    assert re.search(r"^{'value': \d\.\d+, 'unit': 'kWh'}$", done.stdout, re.MULTILINE)
