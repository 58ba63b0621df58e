"""Measures the memory of a light edge that has trained, evaluated and predicted, and its main process and worker apart.

    python benchmarks/light_memory.py [--rounds 4] [--task digits-mlp]

For each process, in MB: ``peak``, the largest resident memory; ``pss``, in which shared pages are divided by those who
share them; ``files``, the part of the resident memory that are pages of files, such as libraries (Linux only).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

from round_overhead import BIN

from fl_shared.system.mosquitto import MosquittoChild

PICTURE = Path(__file__).parents[1] / "examples" / "seven.png"


def memory_mb(pid: int) -> dict[str, float]:
    """The memory of one process, without its children."""
    status = _fields(Path(f"/proc/{pid}/status"))
    shared = _fields(Path(f"/proc/{pid}/smaps_rollup"))
    kb = {"peak": status["VmHWM"], "pss": shared["Pss"], "files": status["RssFile"]}
    return {name: round(size / 1024, 1) for name, size in kb.items()}


def _fields(file: Path) -> dict[str, int]:
    lines = [line.split() for line in file.read_text().splitlines() if line.endswith(" kB")]
    return {name.rstrip(":"): int(size) for name, size, _ in lines}


def main() -> None:
    """Measures one edge, and prints the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--task", default="digits-mlp")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, MosquittoChild(Path(scratch) / "broker") as broker:
        address = ["--broker", broker.url]
        log = (Path(scratch) / "edge.log").open("wb")
        edge = subprocess.Popen(
            [BIN / "fl-edge", "--light", "--id", "0", "--workers", "1", "--task", given.task,
             "--state-dir", Path(scratch) / "edges", *address],
            stderr=log,
        )  # fmt: skip
        try:
            subprocess.run(
                [BIN / "fl-aggregator", "start", "--clients", "1", "--per-round", "1", "--rounds", str(given.rounds),
                 "--task", given.task, "--wait", "300", "--run-dir", Path(scratch) / "run", *address],
                check=True, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
            subprocess.run([BIN / "fl-aggregator", "predict", PICTURE, *address], check=True, stdout=log)
            # The process was started by one of the threads.
            threads = Path(f"/proc/{edge.pid}/task").glob("*/children")
            (worker,) = [int(child) for thread in threads for child in thread.read_text().split()]
            found = {"main": memory_mb(edge.pid), "worker": memory_mb(worker)}
        finally:
            edge.terminate()
            edge.wait(60)
    print(json.dumps({"benchmark": "light_memory", "task": given.task, "rounds": given.rounds, **found}))


if __name__ == "__main__":
    main()
