"""Draws the results of `round_overhead.py`: the time of a round over the size of the model.

    python benchmarks/plot_round_overhead.py docs/performance/round_overhead.jsonl docs/performance/round_overhead.svg

Uses the lines with ten edges and ``--durability memory``; needs matplotlib.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

from fl_shared.tensors.encodings.float32 import FLOAT32


def main(source: Path, target: Path) -> None:
    """Reads the JSON lines in ``source`` and writes an SVG file to ``target``."""
    found = [json.loads(line) for line in source.read_text().splitlines()]
    lines = [line for line in found if line["edges"] == 10 and line["durability"] == "memory"]
    lines.sort(key=lambda line: line["params"])
    megabytes = [FLOAT32.size(line["params"]) / 1e6 for line in lines]
    plt.rcParams |= {"svg.hashsalt": "fl-mqtt", "svg.fonttype": "none", "font.family": "sans-serif"}
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, key, marker in (
        ("Flower's simulation (no network)", "peer_seconds_per_round", "s"),
        ("fl-mqtt, over a broker", "seconds_per_round", "o"),
        ("limit: loopback sockets and a float32 sum", "limit_seconds", "^"),
    ):
        points = [
            (size, line[key])
            for size, line in zip(megabytes, lines, strict=True)
            if line.get(key) is not None
        ]
        axes.loglog(*zip(*points, strict=True), marker=marker, label=name)
    axes.set_xlabel("size of the model and of each of 10 updates, MB")
    axes.set_ylabel("seconds a round, median")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
