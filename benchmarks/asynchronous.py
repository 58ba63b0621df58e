"""How soon an asynchronous run is as accurate as rounds, and what its worst edges have: one JSON line.

    python benchmarks/asynchronous.py [--seeds 0,1,2] [--partition iid] [--write]
    python benchmarks/asynchronous.py --table benchmarks/results/asynchronous.jsonl

``digits`` in virtual time: 20 edges, of which 30 % are five times slower, 10 at work; 300 updates in each run, so that
``--buffer 5`` makes 60 versions where rounds make 30. ``seconds``: virtual time until the test accuracy that the rounds
of the same seed reach in the end, null if it never is. ``accuracy``: of the last version; ``worst_third``: of it on the
holdouts of the edges, the mean of the lowest third. Each is a list with one value a seed. ``--write``: the line goes
to ``results/asynchronous.jsonl``, too. ``--table`` runs nothing: it prints the last line of a file as the table of
``docs/strategies.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final

import measured_lines

CLIENTS: Final = 20
UPDATES: Final = 300
COMMON: Final = (
    "--task", "digits", "--clients", str(CLIENTS), "--lr", "0.05", "--momentum", "0", "--holdout", "0.2",
    "--deadline", "3600", "--wait", "100000", "--grace", "0", "--evaluate-every", "1", "--quiet",
)  # fmt: skip
DEVICES: Final = """
speed = { median = 600.0, sigma = 0.2, slow = { share = 0.3, factor = 5.0 } }
down = { median = 2.5e6, sigma = 0.4 }
up = { median = 1.2e6, sigma = 0.4 }
"""
POLICIES: Final[dict[str, tuple[str, ...]]] = {
    "rounds": ("--per-round", "10", "--rounds", "30"),
    "`--over-select 4`": ("--per-round", "10", "--rounds", "30", "--over-select", "4"),
    "`--buffer 5`": ("--mode", "async", "--concurrency", "10", "--buffer", "5", "--rounds", "60"),
    "`--buffer 10`": ("--mode", "async", "--concurrency", "10", "--buffer", "10", "--rounds", "30"),
}


def run(policy: str, seed: int, partition: str, directory: Path) -> list[dict[str, Any]]:
    """Returns the records of the committed rounds of a run."""
    devices, path = directory / "devices.toml", directory / f"{len(list(directory.iterdir()))}"
    devices.write_text(DEVICES)
    command = [
        sys.executable,
        "-m",
        "fl_mqtt",
        "simulate",
        "--virtual",
        "--heterogeneity",
        str(devices),
        *COMMON,
    ]
    command += ["--partition", partition, "--seed", str(seed), "--run-dir", str(path), *POLICIES[policy]]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    records = [json.loads(line) for line in (path / "history.jsonl").read_text().splitlines()]
    return [record for record in records if record["outcome"] == "committed"]


def figures(records: Sequence[dict[str, Any]], goal: float) -> dict[str, float | None]:
    """What a run has reached, and when it was first as accurate as ``goal``."""
    assert sum(len(record["participants"]) for record in records) == UPDATES
    reached = (one["virtual_seconds"] for one in records if one["metrics"].get("accuracy", 0.0) >= goal)
    edges = sorted(records[-1]["edges"].values())
    return {
        "seconds": next(reached, None),
        "accuracy": records[-1]["metrics"]["accuracy"],
        "worst_third": fmean(edges[: CLIENTS // 3]),
    }


def markdown(found: dict[str, dict[str, list[float | None]]]) -> str:
    """The table of ``docs/strategies.md``."""
    rounds = found["rounds"]["seconds"]
    lines = ["| | seconds to the accuracy of the rounds | of their time, median | accuracy | worst third |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for policy, values in found.items():
        seconds = ", ".join("never" if one is None else f"{one:.0f}" for one in values["seconds"])
        shares = [
            float("inf") if a is None else a / (b or 1.0)
            for a, b in zip(values["seconds"], rounds, strict=True)
        ]
        rest = (
            ", ".join(f"{100 * (one or 0.0):.1f}" for one in values[name])
            for name in ("accuracy", "worst_third")
        )
        lines.append(f"| {policy} | {seconds} | {_share(median(shares))} | {' | '.join(rest)} |")
    return "\n".join(lines)


def _share(value: float) -> str:
    return "never" if value == float("inf") else f"{value:.2f}"


def main() -> None:
    """Runs all policies with all seeds, or prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--partition", default="iid")
    parser.add_argument("--write", action="store_true", help="append the line to results/asynchronous.jsonl")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table is not None:
        print(markdown(measured_lines.read_lines(options.table)[-1]["runs"]))
        return
    found: dict[str, dict[str, list[float | None]]] = {
        policy: {"seconds": [], "accuracy": [], "worst_third": []} for policy in POLICIES
    }
    with tempfile.TemporaryDirectory() as scratch:
        for seed in map(int, options.seeds.split(",")):
            goal = 0.0
            for policy, values in found.items():
                records = run(policy, seed, options.partition, Path(scratch))
                goal = goal or records[-1]["metrics"]["accuracy"]
                for name, value in figures(records, goal).items():
                    values[name].append(None if value is None else round(value, 4))
                print(f"seed {seed}, {policy}: {[values[name][-1] for name in values]}", file=sys.stderr)
    line = {"benchmark": "asynchronous", "partition": options.partition, "runs": found}
    measured_lines.report(line, write=options.write)


if __name__ == "__main__":
    main()
