"""Measures what masks cost: rounds without training, masked and plain in turns, with real programs and a real broker.

    python benchmarks/masked.py --edges 10 --params 431080
    python benchmarks/masked.py --edges 10 --params 11700000 --rounds 5 --turns 3

The rounds are those of `round_overhead.py`. ``ratio``: seconds of a masked round to those of a plain one, the median
of the turns. ``bytes_ratio``: bytes of a round on the wire, likewise. `masking.py` measures the arithmetic alone, and
lost edges. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def rounds(arguments: argparse.Namespace, *options: str) -> dict[str, Any]:
    """Runs `round_overhead.py` once, with these options of the aggregator. Returns its line."""
    passed = [f"--aggregator-option={option}" for option in options]
    command = [
        sys.executable, str(HERE / "round_overhead.py"), "--no-limit", "--edges", str(arguments.edges),
        "--per-round", str(arguments.edges), "--params", str(arguments.params), "--rounds", str(arguments.rounds),
        *passed,
    ]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=arguments.timeout)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measures the turns and prints the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edges", type=int, default=10)
    parser.add_argument("--params", type=int, default=431_080)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--bits", choices=("auto", "32", "40", "48", "64"), default="64")
    parser.add_argument("--timeout", type=float, default=900.0)
    arguments = parser.parse_args()
    masked, plain = [], []
    for _ in range(arguments.turns):
        plain.append(rounds(arguments))
        masked.append(rounds(arguments, "--masked", f"--fold-bits={arguments.bits}"))

    def median_of(lines: list[dict[str, Any]], name: str) -> float:
        return float(statistics.median(line[name] for line in lines))

    def ratio_of(name: str) -> float:
        return float(
            statistics.median(one[name] / other[name] for one, other in zip(masked, plain, strict=True))
        )

    found = {
        "benchmark": "masked",
        "edges": arguments.edges,
        "params": arguments.params,
        "bits": arguments.bits,
        "turns": arguments.turns,
        "seconds_masked": round(median_of(masked, "seconds_per_round"), 4),
        "seconds_plain": round(median_of(plain, "seconds_per_round"), 4),
        "ratio": round(ratio_of("seconds_per_round"), 3),
        "bytes_ratio": round(ratio_of("wire_mb_per_round"), 4),
        "cpu_per_round_masked": masked[-1]["cpu_per_round"],
        "cpu_per_round_plain": plain[-1]["cpu_per_round"],
        "rss_mb_masked": masked[-1]["rss_mb"],
        "rss_mb_plain": plain[-1]["rss_mb"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
