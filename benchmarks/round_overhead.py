"""Measures the time of a round without training: real programs, a real Mosquitto, models of any size.

    python benchmarks/round_overhead.py --edges 10 --per-round 10 --params 431080 --rounds 20 --durability memory
    python benchmarks/round_overhead.py --params 11700000 --rounds 7 --peer flower --peer-python peer/bin/python

An aggregator, one fleet of ``--edges`` edges and a broker with default limits run as three process trees. The
task is `synthetic-N`: N parameters, training returns at once. A round lasts from one commit to the next; the
first ones (``--warm-up``) are left out. ``limit_seconds`` is measured in the same run (`physical_limit.py`:
the same bytes over loopback sockets, and a float32 sum). ``cpu_per_round`` are the processor seconds of a round, by
process, since the warm-up; ``aggregator_cpu_per_gb`` those of the aggregator for each GB of updates, and with them the
part of a line of 10 Gbit/s that one core takes in. ``--peer flower`` runs Flower's simulation engine
with the same sizes, in a Python environment that contains it. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import physical_limit

from fl_shared.system.mosquitto import MosquittoChild
from fl_shared.tensors.encodings.float32 import FLOAT32

BIN = Path(sys.executable).parent
HERE = Path(__file__).parent


def say(text: str) -> None:
    """Prints a line on standard error at once."""
    print(text, file=sys.stderr, flush=True)


class Watched:
    """Measures a process tree: its peak resident memory and its processor time (Linux only).

    ``cpu_at_start``: the seconds of the root and of its children when the warm-up was over, as those since then are
    ``cpu_seconds`` and ``root_cpu_seconds`` without them.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self.peak_mb = 0.0
        self.cpu_seconds = 0.0
        self.root_cpu_seconds = 0.0
        self.cpu_at_start = (0.0, 0.0)

    def start(self) -> None:
        """Says that the warm-up is over."""
        self.cpu_at_start = self.root_cpu_seconds, self.cpu_seconds - self.root_cpu_seconds

    def since_start(self) -> tuple[float, float]:
        """The seconds of the root and of its children since the warm-up."""
        root, children = self.cpu_at_start
        return self.root_cpu_seconds - root, self.cpu_seconds - self.root_cpu_seconds - children

    def look(self) -> None:
        """Measures the tree now. Processes that have just ended are left out."""
        memory, cpu = 0.0, 0.0
        for pid in _tree(self._root):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            memory += next(
                (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0
            )
            seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            cpu += seconds
            if pid == self._root:
                self.root_cpu_seconds = seconds
        self.peak_mb = max(self.peak_mb, memory / 1024)
        self.cpu_seconds = max(self.cpu_seconds, cpu)


def _tree(root: int) -> list[int]:
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def run(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Runs a run of all programs. Returns its measurements; raises ``SystemExit`` if it fails."""
    with MosquittoChild(directory / "broker") as broker:
        common = ["--broker", broker.url, "--keepalive", "60"]
        fleet = subprocess.Popen(
            [str(BIN / "fl-edge"), "--id", f"0-{arguments.edges - 1}", "--role", "train", *common,
             "--task", f"synthetic-{arguments.params}",
             "--state-dir", str(directory / "edges"), *arguments.edge_option],
            stdout=subprocess.DEVNULL, stderr=(directory / "fleet.log").open("wb"),
        )  # fmt: skip
        aggregator = subprocess.Popen(
            [str(BIN / "fl-aggregator"), "start", "--task", f"synthetic-{arguments.params}",
             "--clients", str(arguments.edges), "--per-round", str(arguments.per_round),
             "--rounds", str(arguments.rounds + arguments.warm_up), "--epochs", "1", "--holdout", "0", "--grace", "0",
             "--durability", arguments.durability, "--run-dir", str(directory / "run"), *common,
             *arguments.aggregator_option,
             *(["--chunk", str(arguments.chunk)] if arguments.chunk else [])],
            stdout=subprocess.DEVNULL, stderr=(directory / "aggregator.log").open("wb"),
        )  # fmt: skip
        counted = [0]
        watched = {
            "aggregator": Watched(aggregator.pid),
            "broker": Watched(broker.pid),
            "fleet": Watched(fleet.pid),
        }
        over = threading.Event()
        history = directory / "run" / "history.jsonl"

        def watch() -> None:
            warm = 0
            while not over.wait(0.02):
                for tree in watched.values():
                    tree.look()
                if not warm and history.exists():
                    warm = max(0, history.read_bytes().count(b"\n") - arguments.warm_up + 1)
                    if warm:
                        # Commits may have come between two looks: the rounds since then are what counts.
                        counted[0] = arguments.rounds + 1 - warm
                        for tree in watched.values():
                            tree.start()

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            code = aggregator.wait(arguments.timeout)
        finally:
            over.set()
            watcher.join()
            aggregator.kill()
            fleet.terminate()
            fleet.wait(20)
    if code != 0:
        raise SystemExit(
            f"the aggregator ended with {code}:\n{(directory / 'aggregator.log').read_text()[-2000:]}"
        )
    return summary(arguments, directory, watched, counted[0])


def cpu_per_round(watched: dict[str, Watched], rounds: int) -> dict[str, float]:
    """The processor seconds of each of the last ``rounds`` rounds, by process."""
    aggregator, broker, fleet = (watched[name].since_start() for name in ("aggregator", "broker", "fleet"))
    seconds = {"aggregator": sum(aggregator), "broker": sum(broker), "fleet": fleet[0], "workers": fleet[1]}
    return {name: one / rounds for name, one in seconds.items()}


def summary(
    arguments: argparse.Namespace, directory: Path, watched: dict[str, Watched], rounds: int
) -> dict[str, Any]:
    """The measurements of a run that has ended, from its history. ``rounds``: those since the warm-up."""
    lines = [json.loads(line) for line in (directory / "run" / "history.jsonl").read_text().splitlines()]
    periods = [sum(line["seconds"].values()) for line in lines[arguments.warm_up :]]
    seconds = statistics.median(periods)
    cpu = cpu_per_round(watched, rounds) if rounds > 0 else {}
    gigabytes = arguments.per_round * FLOAT32.size(arguments.params) / 1e9
    per_gb = cpu["aggregator"] / gigabytes if cpu else None
    wire = statistics.median(line["bytes"]["up"] + line["bytes"]["down"] for line in lines)
    return {
        "benchmark": "round_overhead",
        "edges": arguments.edges,
        "per_round": arguments.per_round,
        "params": arguments.params,
        "rounds": len(periods),
        "durability": arguments.durability,
        "seconds_per_round": round(seconds, 5),
        "seconds_min": round(min(periods), 5),
        "seconds_max": round(max(periods), 5),
        "update_mb_per_s": round(arguments.per_round * FLOAT32.size(arguments.params) / 1e6 / seconds, 1),
        "rss_mb": {name: round(tree.peak_mb, 1) for name, tree in watched.items()},
        "cpu_seconds": {name: round(tree.cpu_seconds, 2) for name, tree in watched.items()},
        "cpu_per_round": {name: round(one, 4) for name, one in cpu.items()},
        "aggregator_cpu_per_gb": None if per_gb is None else round(per_gb, 3),
        "of_10_gbit_per_core": None if not per_gb else round(1 / per_gb / 1.25, 3),
        "wire_mb_per_round": round(wire / 1e6, 3),
    }


def peer(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs `flower_peer.py` with the same sizes. Returns its measurements."""
    command = [
        arguments.peer_python,
        str(HERE / "flower_peer.py"),
        str(arguments.per_round),
        str(arguments.params),
    ]
    done = subprocess.run(
        [*command, "5"], capture_output=True, text=True, check=True, timeout=arguments.timeout
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {
        "peer": f"flwr {found['flwr']} simulation",
        "peer_seconds_per_round": round(found["seconds_per_round"], 4),
    }


def main() -> None:
    """Measures the rounds, their limit and the peer, and prints the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edges", type=int, default=10)
    parser.add_argument("--per-round", type=int, default=10)
    parser.add_argument("--params", type=int, default=431_080)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=2, help="rounds that are left out: buffers are made")
    parser.add_argument("--no-limit", action="store_true", help="do not measure the physical limit")
    parser.add_argument("--durability", choices=("process", "power", "memory"), default="memory")
    parser.add_argument("--chunk", type=int, default=None, help="bytes; the programs' default if not given")
    parser.add_argument("--edge-option", action="append", default=[], help="passed to fl-edge, once a word")
    parser.add_argument(
        "--aggregator-option", action="append", default=[], help="passed to fl-aggregator, likewise"
    )
    parser.add_argument("--peer", choices=("flower",), default=None)
    parser.add_argument("--peer-python", default="peer/bin/python")
    parser.add_argument("--timeout", type=float, default=900.0)
    arguments = parser.parse_args()
    if arguments.chunk:
        arguments.edge_option += ["--chunk", str(arguments.chunk)]
    started = time.perf_counter()

    def limit() -> float:
        return physical_limit.seconds_per_round(arguments.per_round, arguments.params)

    # Measured before and after, since a machine's speed drifts; the limit is the mean of both medians.
    before = 0.0 if arguments.no_limit else limit()
    with tempfile.TemporaryDirectory() as scratch:
        found = run(arguments, Path(scratch))
    if not arguments.no_limit:
        found["limit_seconds"] = round((before + limit()) / 2, 5)
        found["ratio_to_limit"] = round(found["seconds_per_round"] / found["limit_seconds"], 2)
    if arguments.peer:
        found |= peer(arguments)
        found["ratio_to_peer"] = round(found["seconds_per_round"] / found["peer_seconds_per_round"], 3)
    say(f"took {time.perf_counter() - started:.0f} s")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
