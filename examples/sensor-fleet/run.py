"""A sensor fleet: find anomalies in the measurements of pumps, which stay with each pump.

    python examples/sensor-fleet/run.py [DIR]

writes the measurements of six pumps into DIR (default: runs/sensor-fleet), a CSV file each and a test split, trains an
autoencoder on them through a real broker, and asks a pump about a window. The data are synthetic, with a fixed seed.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

PUMPS: Final = 6
STEPS: Final = 600
WINDOW: Final = 24
COLUMNS: Final = ("temperature", "pressure", "vibration")


def measurements(pump: int) -> NDArray[np.float64]:
    """Returns the measurements of a pump, shape (steps, columns): a daily rhythm, and a level and noise of its own."""
    rng = np.random.default_rng([7, pump])
    hours = np.arange(STEPS)
    load = 1 + 0.5 * np.sin(2 * np.pi * hours / 24) + rng.normal(0, 0.05, STEPS)
    temperature = 40 + 4 * (pump % PUMPS) + 10 * load + rng.normal(0, 0.5, STEPS)
    pressure = 101_300 + 2_000 * load + rng.normal(0, 80, STEPS)
    vibration = 0.02 * load + rng.normal(0, 0.003, STEPS)
    return np.column_stack([temperature, pressure, vibration])


def write(path: Path, values: NDArray[np.float64]) -> None:
    """Writes a table with a row an hour."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("hour", *COLUMNS))
        table.writerows((hour, *(f"{value:.6g}" for value in row)) for hour, row in enumerate(values))


def main() -> int:
    """Writes the data, and runs the simulation."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/sensor-fleet")
    data = directory / "data"
    data.mkdir(parents=True, exist_ok=True)
    for pump in range(PUMPS):
        write(data / f"pump-{pump}.csv", measurements(pump))
    write(data / "test.csv", measurements(PUMPS))
    # A bearing fails: vibration triples while all else is as usual.
    failing = measurements(0)[:WINDOW]
    failing[:, COLUMNS.index("vibration")] *= 3
    request = {"columns": COLUMNS, "values": failing.tolist()}
    (directory / "failing.json").write_text(json.dumps(request), encoding="utf-8")
    command = [
        "fl-aggregator", "simulate", "--task", "series", "--data", str(data), "--partition", "natural",
        "--task-option", "goal=anomaly", "--task-option", "time=hour", "--task-option", f"window={WINDOW}",
        "--clients", str(PUMPS), "--per-round", str(PUMPS), "--rounds", "20",
        "--run-dir", str(directory / "run"), "--predict", str(directory / "failing.json"),
    ]  # fmt: skip
    return subprocess.run([Path(sys.executable).parent / command[0], *command[1:]], check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
