"""Measures a run of very many edges: how fast they register, what a round costs, and how soon a restart is back in one.

    python benchmarks/many_edges.py [--edges 10000] [--per-round 1000] [--params 25000] [--rounds 3]

One Mosquitto, one aggregator and one ``fl-edge`` process with all edges: each has its own MQTT connection and session,
and registers, is admitted, loads and sends updates as any other; its training returns at once. The hard limit of open
files must be above ``2 * edges``. Prints seconds; CPU seconds of each program in each part; the aggregator's CPU
milliseconds for each registered edge and for each update; and resident memory. Run it with two sizes to see growth.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from round_overhead import BIN, Watched, say

from fl_shared.system.mosquitto import MosquittoChild


class Run:
    """The programs of a run, in a directory of their own. They end with it."""

    def __init__(self, arguments: argparse.Namespace, directory: Path, broker: MosquittoChild) -> None:
        self._arguments, self._directory = arguments, directory
        self._common = ["--broker", broker.url, "--keepalive", "600"]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.watched = {"broker": Watched(broker.pid)}

    def start_fleet(self) -> None:
        """Starts the edges."""
        edges, state = self._arguments.edges, self._directory / "edges"
        self._start("fleet", "fl-edge", "--id", f"0-{edges - 1}", "--role", "train", "--state-dir", state,
                    "--task", f"synthetic-{self._arguments.params}")  # fmt: skip

    def start_aggregator(self) -> None:
        """Starts a new run."""
        given = self._arguments
        self._start("aggregator", "fl-aggregator", "start", "--task", f"synthetic-{given.params}", "--clients",
                    given.edges, "--per-round", given.per_round, "--rounds", 1000, "--epochs", 1, "--holdout", 0,
                    "--wait", 3600, "--durability", "memory", "--run-dir", self._directory / "run")  # fmt: skip

    def restart_aggregator(self) -> None:
        """Kills the aggregator, and resumes the run."""
        self._processes["aggregator"].kill()
        self._processes["aggregator"].wait()
        self._start("aggregator", "fl-aggregator", "start", "--resume", self._directory / "run")

    def _start(self, name: str, *command: object) -> None:
        log = (self._directory / f"{name}.log").open("ab")
        words = [str(BIN / str(command[0])), *map(str, command[1:]), *self._common]
        process = self._processes[name] = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=log)
        self.watched[name] = Watched(process.pid)

    def rounds(self) -> int:
        """How many rounds have ended."""
        file = self._directory / "run" / "history.jsonl"
        return len(file.read_bytes().splitlines()) if file.exists() else 0

    def until(self, what: str, rounds: int) -> dict[str, Any]:
        """Waits until so many rounds have ended. Returns the seconds and CPU seconds that it took."""
        before, started = self._cpu(), time.monotonic()
        while self.rounds() < rounds:
            time.sleep(0.05)
            after = self._cpu()
            if any(process.poll() is not None for process in self._processes.values()):
                raise SystemExit(f"a program has ended; see its log:\n{self.logs()}")
            if time.monotonic() - started > self._arguments.timeout:
                raise SystemExit(
                    f"{what}: not within {self._arguments.timeout:g} s; CPU so far: {after}\n{self.logs()}"
                )
        say(f"{what}: done")
        used = {name: round(cpu - before.get(name, 0.0), 2) for name, cpu in self._cpu().items()}
        return {"seconds": round(time.monotonic() - started, 2), "cpu_seconds": used}

    def _cpu(self) -> dict[str, float]:
        for tree in self.watched.values():
            tree.look()
        return {name: tree.cpu_seconds for name, tree in self.watched.items()}

    def logs(self) -> str:
        """The ends of the logs."""
        return "\n".join(file.read_text()[-1500:] for file in sorted(self._directory.glob("*.log")))

    def end(self) -> None:
        """Ends what has been started."""
        for process in self._processes.values():
            process.kill()
            process.wait()


def measure(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Runs all parts, and returns what they took."""
    with MosquittoChild(directory / "broker") as broker:
        run = Run(arguments, directory, broker)
        try:
            run.start_aggregator()
            time.sleep(arguments.settling)  # so that its own start is not counted
            run.start_fleet()
            first = run.until("all have registered, and round 1 has ended", 1)
            rounds = run.until(f"{arguments.rounds} more rounds", 1 + arguments.rounds)
            memory = {name: round(tree.peak_mb, 1) for name, tree in run.watched.items()}
            run.restart_aggregator()
            restart = run.until("restarted, and a round has ended", run.rounds() + 1)
        finally:
            run.end()
    updates = arguments.per_round * arguments.rounds
    return {
        "benchmark": "many_edges",
        "edges": arguments.edges,
        "per_round": arguments.per_round,
        "params": arguments.params,
        "registered_and_first_round": first,
        "rounds": rounds,
        "seconds_per_round": round(rounds["seconds"] / arguments.rounds, 3),
        "aggregator_ms_per_edge": round(1000 * first["cpu_seconds"]["aggregator"] / arguments.edges, 3),
        "aggregator_ms_per_update": round(1000 * rounds["cpu_seconds"]["aggregator"] / updates, 3),
        "restart": restart,
        "rss_mb": memory,
    }


def main() -> None:
    """Measures once, and prints the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edges", type=int, default=10_000)
    parser.add_argument("--per-round", type=int, default=1000)
    parser.add_argument("--params", type=int, default=25_000, help="values of the model, of four bytes each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--settling", type=float, default=5.0, help="seconds that the aggregator has to start"
    )
    parser.add_argument(
        "--timeout", type=float, default=180.0, help="seconds that each of the three parts may take"
    )
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < 2 * arguments.edges:
        sys.exit(f"the hard limit of open files is {hard}, but {2 * arguments.edges} are needed: ulimit -Hn")
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(arguments, Path(scratch))))


if __name__ == "__main__":
    main()
