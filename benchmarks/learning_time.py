"""Block D of `learning.py`: runs in virtual time, and what each edge has of the model at the end.

The devices are those that a preset draws with the cell's seed, but in the order of their speed: edge 0 has the slowest.
So a division of the data can say what slow edges have (`learning_task.SlowThird`). Such a run is ``simulate --virtual``
in a process of its own, as a user begins it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from learning_cells import Cell, Line, curve_of
from learning_task import TASKS

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.storage.checkpoint import model_of, read_arrays
from fl_edge.tasks.task import LoadContext
from fl_edge.training.local_training import model_from
from fl_mqtt import RunFailed, UserError
from fl_mqtt.simulation.virtual.devices import Devices
from fl_mqtt.simulation.virtual.specification import PRESETS, read_specification

LAST: Final = 3
"""Evaluations whose mean is the accuracy of a run."""


def write_devices(preset: str, clients: int, seed: int, directory: Path) -> Path:
    """Writes a device file into ``directory`` and returns it: those of ``preset``, the slowest first."""
    drawn = Devices(read_specification(preset), seed)
    devices = sorted(
        (drawn.device(str(number)) for number in range(clients)), key=lambda device: device.speed
    )
    rows = [f"{number},{one.speed},{one.link.down},{one.link.up}" for number, one in enumerate(devices)]
    capacity = directory / "capacity.csv"
    capacity.write_text("\n".join(["client,examples_per_second,down,up", *rows]) + "\n")
    file = directory / "devices.toml"
    file.write_text(f'{(PRESETS / f"{preset}.toml").read_text()}\n[trace]\ncapacity = "{capacity.name}"\n')
    return file


def simulate(cell: Cell, data: Path | None, workers: int, directory: Path) -> None:
    """Runs ``cell`` in virtual time; the run is written to ``directory``. Raises ``RunFailed`` and ``UserError``."""
    assert cell.devices is not None
    given = {
        "task": f"{TASKS[cell.task].__module__}:{TASKS[cell.task].__name__}", "workers": workers, "run_dir": directory,
        "heterogeneity": write_devices(cell.devices, cell.options["clients"], cell.seed, directory.parent),
        "data": data, **cell.options,
    }  # fmt: skip
    command = [sys.executable, "-m", "fl_mqtt", "simulate", "--virtual", "--quiet"]
    for name, value in given.items():
        if value is not None:
            command += [f"--{name.replace('_', '-')}", str(value)]
    modules = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": modules}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        # A mistake is said on standard error; how a run failed, on standard output, and how to resume it.
        said = (done.stderr.strip() or done.stdout.strip() or "no reason was said").splitlines()[-1]
        said = said.removeprefix("failed: ").partition("; resume with")[0]
        raise (UserError if done.returncode == 2 else RunFailed)(said)


def measured(cell: Cell, data: Path | None, directory: Path, history: Sequence[Line]) -> dict[str, Any]:
    """What a run in ``directory`` has reached, and when.

    ``times``: the virtual seconds and the accuracy of each evaluated version. ``edges``: by client, the accuracy of the
    last version on its holdout, of those too that were not there at the end. ``worst_third``: the mean of the lowest
    third of them; ``slow_third``: of the edges with the slowest devices.
    """
    curve = curve_of(history)
    seconds = {
        record["version"]: record["virtual_seconds"] for record in history if record["outcome"] == "committed"
    }
    values = [value for _, value in curve[-LAST:]]
    edges = edge_accuracies(cell, data, directory / "model.safetensors")
    third = cell.options["clients"] // 3
    return {
        "last": round(fmean(values), 4),
        "spread": round(max(values) - min(values), 4),
        "evaluated": len(values),
        "virtual_seconds": history[-1]["virtual_seconds"],
        "times": [(round(seconds[version], 1), value) for version, value in curve],
        "worst_third": round(fmean(sorted(edges.values())[:third]), 4),
        "slow_third": round(fmean(edges[str(number)] for number in range(third)), 4),
        "edges": edges,
    }


def edge_accuracies(cell: Cell, data: Path | None, file: Path) -> dict[str, float]:
    """Returns by client how accurate the model in ``file`` is on its holdout."""
    task, settings = TASKS[cell.task](), Settings(**cell.options)
    metadata, arrays = read_arrays(file)
    stored = model_of(file, metadata, arrays)
    model = model_from(task, stored.weights, stored.manifest)
    found: dict[str, float] = {}
    for number in range(settings.clients):
        holdout = task.load(LoadContext(str(number), settings.partition_at(number), data)).holdout
        if holdout is not None:
            found[str(number)] = round(task.evaluate(model, holdout).metrics["accuracy"], 4)
    return found


def seconds_to(line: Line, accuracy: float) -> float | None:
    """Returns the virtual seconds until a version was first as accurate; null if none was."""
    return next((seconds for seconds, value in line["times"] if value >= accuracy), None)


def shares_of_time(line: Line, whole: Line) -> Mapping[int, tuple[float, float]]:
    """Returns by version the share of the time of the run ``whole``, in percent, and the accuracy."""
    return {
        version: (100 * seconds / whole["virtual_seconds"], value)
        for (version, _), (seconds, value) in zip(line["curve"], line["times"], strict=True)
    }
