"""What models of the edges' own are worth on skewed data. One JSON line, and on standard error a row for each cell.

    python benchmarks/personal.py [--seeds 3] [--write]
    python benchmarks/personal.py --table benchmarks/results/personal.jsonl

Ten edges, Dirichlet 0.1, ten rounds of all edges. Accuracy on an edge's own holdout, of the last version and of the
edge's model after five epochs more: the mean over the edges, each of which counts the same, and over seeds 0, 1, …
``--write``: the line goes to ``results/personal.jsonl``, too. ``--table`` runs nothing: it prints the last line of a
file as the table of ``docs/personal.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import measured_lines

from fl_mqtt import simulate

CELLS: Final[dict[str, dict[str, Any]]] = {
    "fashion-mnist": {"task": "fashion-mnist", "epochs": 2, "train_examples": 3000},
    "fashion-mnist --keep-local 'fc2.*'": {
        "task": "fashion-mnist", "epochs": 2, "train_examples": 3000, "keep_local": ("fc2.*",),
    },
    "digits-mlp": {"task": "digits-mlp", "epochs": 2},
    "digits-mlp --keep-local 'fc2.*'": {"task": "digits-mlp", "epochs": 2, "keep_local": ("fc2.*",)},
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


def markdown(found: dict[str, list[tuple[float, float, int]]]) -> str:
    """The table of ``docs/personal.md``."""
    lines = ["| run | last version | own model | gain by seed, points | edges that lose |"]
    lines.append("| --- | --: | --: | --: | --: |")
    for name, runs in found.items():
        before, after = (statistics.fmean(run[place] for run in runs) for place in (0, 1))
        gains = ", ".join(f"{100 * (run[1] - run[0]):.1f}".replace("-", "−") for run in runs)
        worse = sum(run[2] for run in runs)
        lines.append(f"| `{name}` | {before:.3f} | {after:.3f} | {gains} | {worse} of {EDGES * len(runs)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures all cells, or prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="append the line to results/personal.jsonl")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print its last line as a table instead")
    options = parser.parse_args()
    if options.table is not None:
        print(markdown(measured_lines.read_lines(options.table)[-1]["cells"]))
        return
    found = {}
    for name, cell in CELLS.items():
        found[name] = [measure(cell, seed) for seed in range(options.seeds)]
        print(f"{name}: {found[name]}", file=sys.stderr)
    measured_lines.report({"benchmark": "personal", **SETTINGS, "cells": found}, write=options.write)


if __name__ == "__main__":
    main()
