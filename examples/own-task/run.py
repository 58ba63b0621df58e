"""A task of one's own: forecast the load of heat networks, whose measurements stay with each network.

    python examples/own-task/run.py [DIR]

writes the measurements of three sites into DIR (default: runs/own-task), a CSV file each, trains the task of
``heat_load.py`` on them through a real broker, and asks a site for a forecast. The data are synthetic, with a seed.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np

SITES: Final = ("east", "north", "south")
HOURS: Final = 24 * 14


def write(path: Path, site: int) -> list[float]:
    """Writes a table with a row an hour, and returns its loads, in kW: a daily rhythm and noise."""
    rng = np.random.default_rng([7, site])
    hours = np.arange(HOURS)
    loads = 320 + 30 * site + 90 * np.sin(2 * np.pi * hours / 24) + rng.normal(0, 5, HOURS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("hour", "load_kw"))
        table.writerows(zip(hours.tolist(), loads.round(2).tolist(), strict=True))
    return [float(load) for load in loads]


def main() -> int:
    """Writes the data, and runs the simulation."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own-task").absolute()
    loads = [write(directory / "sites" / name / "load.csv", site) for site, name in enumerate(SITES)]
    request = directory / "request.json"
    request.write_text(json.dumps({"loads": loads[0][-24:]}), encoding="utf-8")
    command = [
        "fl-aggregator", "simulate", "--task", "heat_load:HeatLoad", "--data", str(directory / "sites"),
        "--partition", "natural", "--clients", str(len(SITES)), "--rounds", "6",
        "--run-dir", str(directory / "run"), "--predict", str(request),
    ]  # fmt: skip
    program = Path(sys.executable).parent / command[0]
    # A task that is not installed is found in the current directory.
    return subprocess.run([program, *command[1:]], cwd=Path(__file__).parent, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
