"""Measures a run of very many edges: how fast they register, what a round costs, and how soon a restart is back in one.

    python benchmarks/many_edges.py [--edges 10000] [--per-round 1000] [--params 25000] [--rounds 3] [--fleets 1]

One Mosquitto, one aggregator and as few ``fl-edge`` processes as the limit of open files allows: each edge has its own
MQTT connection and session, and registers, is admitted, loads and sends updates as any other; its training returns at
once. Prints seconds, and CPU seconds of each program in each part (those of the fleets together); CPU milliseconds of
each for a registered edge and for an update; and resident memory. Run it with two sizes to see growth.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from round_overhead import BIN, Watched, say

from fl_shared.system.file_limit import raise_file_limit
from fl_shared.system.mosquitto import MosquittoChild

FILES_PER_EDGE: Final = 2.5
"""Open files for each edge: a lock and a connection, and three for the update of every sixth."""


class Run:
    """The programs of a run, in a directory of their own. They end with it."""

    def __init__(self, arguments: argparse.Namespace, directory: Path, broker: MosquittoChild) -> None:
        self._arguments, self._directory = arguments, directory
        self._common = ["--broker", broker.url, "--keepalive", "600"]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.watched = {"broker": Watched(broker.pid)}

    def start_fleets(self) -> None:
        """Starts the edges, divided among the fleets."""
        edges, fleets = self._arguments.edges, self._arguments.fleets
        for fleet in range(fleets):
            first, end = edges * fleet // fleets, edges * (fleet + 1) // fleets
            self._start(f"fleet {fleet}", "fl-edge", "--id", f"{first}-{end - 1}", "--role", "train", "--state-dir",
                        self._directory / "edges", "--task", f"synthetic-{self._arguments.params}")  # fmt: skip

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
        """How many rounds have made a version."""
        file = self._directory / "run" / "history.jsonl"
        return file.read_bytes().count(b'"committed"') if file.exists() else 0

    def have_registered(self) -> bool:
        """Whether the run has begun, for which all edges must have registered."""
        return b" round 0: " in (self._directory / "aggregator.log").read_bytes()

    def until(self, what: str, is_done: Callable[[], bool]) -> dict[str, Any]:
        """Waits until something is done. Returns the seconds and CPU seconds that it took."""
        before, started = self._cpu(), time.monotonic()
        while not is_done():
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

    def until_rounds(self, what: str, more: int) -> dict[str, Any]:
        """Waits until so many more rounds have ended. See `until`."""
        rounds = self.rounds() + more
        return self.until(what, lambda: self.rounds() >= rounds)

    def _cpu(self) -> dict[str, float]:
        for tree in self.watched.values():
            tree.look()
        return self._by_program(lambda tree: tree.cpu_seconds)

    def _by_program(self, measure: Callable[[Watched], float]) -> dict[str, float]:
        sums: dict[str, float] = {}
        for name, tree in self.watched.items():
            program = name.split()[0]
            sums[program] = sums.get(program, 0.0) + measure(tree)
        return sums

    def memory(self) -> dict[str, float]:
        """The most resident memory so far, in MB."""
        return {name: round(mb, 1) for name, mb in self._by_program(lambda tree: tree.peak_mb).items()}

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
            run.start_fleets()
            registered = run.until("all have registered", run.have_registered)
            first = run.until_rounds("round 1 has ended", 1)
            rounds = run.until_rounds(f"{arguments.rounds} more rounds", arguments.rounds)
            memory = run.memory()
            run.restart_aggregator()
            restart = run.until_rounds("restarted, and a round has ended", 1)
        finally:
            run.end()
    return {
        "benchmark": "many_edges",
        "edges": arguments.edges,
        "per_round": arguments.per_round,
        "params": arguments.params,
        "fleets": arguments.fleets,
        "registered": registered,
        "first_round": first,
        "rounds": rounds,
        "seconds_per_round": round(rounds["seconds"] / arguments.rounds, 3),
        "ms_per_edge": _ms_each(registered, arguments.edges),
        "ms_per_update": _ms_each(rounds, arguments.per_round * arguments.rounds),
        "restart": restart,
        "rss_mb": memory,
    }


def _ms_each(part: dict[str, Any], count: int) -> dict[str, float]:
    return {name: round(1000 * seconds / count, 3) for name, seconds in part["cpu_seconds"].items()}


def main() -> None:
    """Measures once, and prints the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--edges", type=int, default=10_000)
    parser.add_argument("--per-round", type=int, default=1000)
    parser.add_argument("--params", type=int, default=25_000, help="values of the model, of four bytes each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fleets", type=int, help="processes of edges (default: as few as possible)")
    parser.add_argument(
        "--settling", type=float, default=5.0, help="seconds that the aggregator has to start"
    )
    parser.add_argument(
        "--timeout", type=float, default=180.0, help="seconds that each of the four parts may take"
    )
    arguments = parser.parse_args()
    limit = raise_file_limit()
    arguments.fleets = arguments.fleets or math.ceil(FILES_PER_EDGE * arguments.edges / limit)
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(arguments, Path(scratch))))


if __name__ == "__main__":
    main()
