"""Measures the CPU time of programs that wait.

    python benchmarks/idle.py [--seconds 60] [--write]

Prints CPU seconds in an hour, extrapolated from ``--seconds``: of an aggregator that waits for edges, of an edge (with
its worker) that waits for a round, and of an aggregator that waits in an open round for an edge that has been stopped
(SIGSTOP). All run at the same time over a real Mosquitto, and so does a stock paho client that only keeps its
connection alive, for comparison. ``--write``: the line goes to ``results/idle.jsonl``, too.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measured_lines
from startup import BIN, Watch, children, on

from fl_shared.mqtt.network import Network
from fl_shared.system.mosquitto import MosquittoChild

PAHO = """
import sys, paho.mqtt.client as paho
client = paho.Client(paho.CallbackAPIVersion.VERSION2)
client.connect("127.0.0.1", int(sys.argv[1]), keepalive=60)
client.loop_forever()
"""
PROGRAMS = {
    "aggregator_waiting_for_edges": "an aggregator that waits for edges",
    "aggregator_in_a_round": "an aggregator that waits in an open round",
    "edge_waiting": "an edge, with its worker, that waits for a round",
    "paho_keeping_alive": "a stock paho client that only keeps its connection alive",
}
SETTLING = 5.0
"""Seconds between the last thing that happens and the measurement."""


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    return [pid, *(one for child in children(pid) for one in family(child))]


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its descendants so far."""
    threads = [path for one in family(pid) for path in Path(f"/proc/{one}/task").glob("*/schedstat")]
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def measure(scratch: Path, seconds: float) -> dict[str, float]:
    """Starts everything, and returns CPU seconds in an hour by program."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str | Path) -> int:
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet))
        return started[-1].pid

    def edge(prefix: str) -> int:
        state = scratch / f"{prefix}-edge"
        return start(
            BIN / "fl-edge", "--id", "0", "--broker", broker.url, "--prefix", prefix, "--state-dir", state
        )

    def aggregator(prefix: str, clients: str) -> int:
        return start(
            BIN / "fl-aggregator", "start", "--broker", broker.url, "--prefix", prefix, "--clients", clients,
            "--per-round", "1", "--wait", "3600", "--deadline", "3600", "--run-dir", scratch / prefix,
        )  # fmt: skip

    with MosquittoChild(scratch / "broker") as broker, Network() as network:
        watch = Watch(network, broker.url)
        try:
            pids = {"paho_keeping_alive": start(sys.executable, "-c", PAHO, str(broker.port))}
            pids["aggregator_waiting_for_edges"] = aggregator("waiting", "2")
            pids["edge_waiting"] = edge("waiting")
            watch.until(on("waiting/register/0", b'"manifest":"'))
            pids["aggregator_in_a_round"] = aggregator("busy", "1")
            stopped = edge("busy")
            watch.until(on("busy/round/1/selected", b"selected"))
            for pid in family(stopped):
                os.kill(pid, signal.SIGSTOP)
            time.sleep(SETTLING)
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            time.sleep(seconds)
            used = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
            watch.until(on("busy/status", b'"phase":"collecting"'))
        finally:
            for process in started:
                for pid in family(process.pid):
                    os.kill(pid, signal.SIGCONT)
                process.terminate()
            for process in started:
                process.wait(20)
    return {name: round(cpu * 3600 / seconds, 1) for name, cpu in used.items()}


def markdown(found: dict[str, float]) -> str:
    """The table of ``docs/performance.md``."""
    lines = ["| program | CPU seconds in an hour |", "| --- | --: |"]
    return "\n".join((*lines, *(f"| {text} | {found[name]:.1f} |" for name, text in PROGRAMS.items())))


def main() -> None:
    """Measures once, and prints the CPU seconds in an hour."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure")
    parser.add_argument("--write", action="store_true", help="append the line to results/idle.jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(scratch), options.seconds)
    line = {"benchmark": "idle", "seconds": options.seconds, "cpu_seconds_per_hour": found}
    measured_lines.report(line, write=options.write)


if __name__ == "__main__":
    main()
