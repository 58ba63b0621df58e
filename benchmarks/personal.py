"""What models of the edges' own are worth on skewed data. One JSON line, and on standard error a row for each cell.

    python benchmarks/personal.py [SEEDS]

Ten edges, Dirichlet 0.1, ten rounds of all edges. Accuracy on an edge's own holdout, of the last version and of the
edge's model after five epochs more: the mean over the edges, each of which counts the same, and over seeds 0, 1, …
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from typing import Any, Final

from fl_mqtt import simulate

CELLS: Final[dict[str, dict[str, Any]]] = {
    "digits-mlp": {"task": "digits-mlp", "epochs": 2},
    "digits-mlp, fc2.* local": {"task": "digits-mlp", "epochs": 2, "keep_local": ("fc2.*",)},
    "fashion-mnist": {"task": "fashion-mnist", "epochs": 2, "train_examples": 3000},
    "fashion-mnist, fc2.* local": {
        "task": "fashion-mnist", "epochs": 2, "train_examples": 3000, "keep_local": ("fc2.*",),
    },
}  # fmt: skip
EDGES: Final = 10
SETTINGS: Final[dict[str, Any]] = {
    "clients": EDGES,
    "rounds": 10,
    "partition": "dirichlet:0.1",
    "personalize": 5,
    "workers": 1,
}


def measure(cell: dict[str, Any], seed: int) -> tuple[float, float, int]:
    """Returns the means over the edges, before and after, and how many edges have become worse."""
    with tempfile.TemporaryDirectory() as directory:
        result = simulate(**cell, **SETTINGS, seed=seed, run_dir=f"{directory}/run")
    before, after = (result.history[-1]["personal"][when] for when in ("before", "after"))
    worse = sum(after[edge] < before[edge] for edge in after)
    return statistics.fmean(before.values()), statistics.fmean(after.values()), worse


def main() -> None:
    """Measures all cells."""
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    found = {}
    print(
        "| run | last version | own model | gain, points | edges that lose |\n| --- | --: | --: | --: | --: |",
        file=sys.stderr,
    )
    for name, cell in CELLS.items():
        runs = [measure(cell, seed) for seed in seeds]
        before, after = (statistics.fmean(run[place] for run in runs) for place in (0, 1))
        worse = sum(run[2] for run in runs)
        gains = ", ".join(f"{100 * (run[1] - run[0]):.1f}" for run in runs)
        print(
            f"| {name} | {before:.3f} | {after:.3f} | {gains} | {worse} of {EDGES * len(seeds)} |",
            file=sys.stderr,
        )
        found[name] = runs
    print(json.dumps({"benchmark": "personal", **SETTINGS, "cells": found}))


if __name__ == "__main__":
    main()
