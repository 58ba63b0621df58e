"""Measures the memory of an edge that waits among others in one process.

    python benchmarks/idle_edges.py [--edges 500] [--few 10] [--task digits-mlp] [--light] [--write]

Twice, a run of one round with all edges of one ``fl-edge`` process has ended: with ``--few`` edges, and with
``--edges``. Prints the resident and the proportional (PSS) memory of that process without its worker, and the
difference for each edge, in kB (Linux only). ``--light``: edges that train without torch.
``--write``: the line goes to ``results/idle_edges.jsonl``, too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

import measured_lines
from round_overhead import BIN

from fl_shared.system.file_limit import raise_file_limit
from fl_shared.system.mosquitto import MosquittoChild


def memory_kb(pid: int) -> dict[str, int]:
    """The memory of one process, without its children: ``rss`` and ``pss``."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {name.rstrip(":").lower(): value for name, value, *_ in map(str.split, lines[1:])}
    return {name: int(found[name]) for name in ("rss", "pss")}


def measure(edges: int, task: str, *, light: bool, timeout: float) -> dict[str, int]:
    """The memory of a process with so many edges that have taken part in a run, and wait for another one."""
    with tempfile.TemporaryDirectory() as scratch, MosquittoChild(Path(scratch) / "broker") as broker:
        address = ["--broker", broker.url, "--keepalive", "600"]
        log = Path(scratch) / "fleet.log"
        fleet = subprocess.Popen(
            [BIN / "fl-edge", "--id", f"0-{edges - 1}", "--role", "train", "--workers", "1", *address,
             "--state-dir", Path(scratch) / "edges", "--task", task],
            env={**os.environ, **({"FL_LIGHT": "1"} if light else {})}, stderr=log.open("wb"),
        )  # fmt: skip
        aggregator = subprocess.Popen(
            [BIN / "fl-aggregator", "start", "--clients", str(edges), "--per-round", "1", "--rounds", "1",
             "--epochs", "1", "--task", task, "--wait", str(timeout), "--run-dir", Path(scratch) / "run", *address],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while aggregator.poll() is None:
                if fleet.poll() is not None:
                    raise SystemExit(f"the edges have ended:\n{log.read_text()[-1500:]}")
                time.sleep(0.2)
            if aggregator.returncode:
                raise SystemExit(
                    f"the aggregator ended with {aggregator.returncode}; the edges:\n{log.read_text()[-1500:]}"
                )
            return memory_kb(fleet.pid)
        finally:
            for process in (aggregator, fleet):
                process.terminate()
                process.wait(60)


def main() -> None:
    """Measures both, and prints the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edges", type=int, default=500)
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--task", default="digits-mlp")
    parser.add_argument("--light", action="store_true")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds in which all have registered")
    parser.add_argument("--write", action="store_true", help="append the line to results/idle_edges.jsonl")
    given = parser.parse_args()
    raise_file_limit()
    few, many = (
        measure(edges, given.task, light=given.light, timeout=given.timeout)
        for edges in (given.few, given.edges)
    )
    each = {name: round((many[name] - few[name]) / (given.edges - given.few), 1) for name in few}
    line = {
        "benchmark": "idle_edges",
        "task": given.task,
        "light": given.light,
        "kb": {str(given.few): few, str(given.edges): many},
        "kb_per_edge": each,
    }
    measured_lines.report(line, write=given.write)


if __name__ == "__main__":
    main()
