"""Measures how fast an aggregator and an edge start, and the time of a round without training.

    python benchmarks/startup.py [--runs 5]

Prints medians of seconds: from the start of `fl-aggregator start` to its birth at the broker; from the start
of `fl-edge --id 7` to its first registration and to its second one (data loaded, model built, ready to be
selected), compared with `import torch` alone in the same run; the same of an edge with `--light`, with the largest
resident memory of its processes; and the period of rounds with a model of ten parameters and ten edges.
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fl_shared.mqtt import events as mqtt
from fl_shared.mqtt.address import BrokerAddress
from fl_shared.mqtt.network import Network
from fl_shared.system.mosquitto import MosquittoChild

BIN = Path(sys.executable).parent


class Watch:
    """Receives everything that is published at a broker, with the time of arrival."""

    def __init__(self, network: Network, url: str) -> None:
        self._events: queue.SimpleQueue[tuple[float, mqtt.ConnectionEvent]] = queue.SimpleQueue()
        settings = mqtt.ConnectionSettings(BrokerAddress.parse(url))
        self._connection = network.connect(
            settings, lambda event: self._events.put((time.perf_counter(), event))
        )
        self._connection.wait_connected(10)
        self._connection.subscribe([("#", 0)])
        self.until(lambda event: isinstance(event, mqtt.Subscribed))

    def until(self, wanted: Any, timeout: float = 60.0) -> float:
        """When the next event arrived for which ``wanted`` is true.

        Raises ``SystemExit`` after ``timeout`` s.
        """
        deadline = time.perf_counter() + timeout
        while (left := deadline - time.perf_counter()) > 0:
            try:
                at, event = self._events.get(timeout=left)
            except queue.Empty:
                break
            if wanted(event):
                return at
        raise SystemExit("nothing of the kind came")


def on(topic: str, text: bytes = b"") -> Any:
    """A condition for `Watch.until`: a message on ``topic`` that contains ``text``."""
    return lambda event: (
        isinstance(event, mqtt.Received) and event.topic == topic and text in bytes(event.payload)
    )


def import_torch() -> float:
    """Seconds of a Python process that only imports torch."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - started


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_mb(pid: int) -> float:
    """The largest resident memory that a process has had, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6


def once(directory: Path) -> tuple[dict[str, float], float]:
    """Starts an aggregator and edges; returns the seconds until each is ready, and the memory of the light one."""
    with MosquittoChild(directory / "broker") as broker, Network() as network:
        watch = Watch(network, broker.url)
        started = time.perf_counter()
        aggregator = subprocess.Popen(
            [BIN / "fl-aggregator", "start", "--broker", broker.url, "--clients", "8", "--per-round", "1",
             "--run-dir", directory / "run"],
            stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        born = watch.until(on("fl/aggregator", b"online")) - started
        started = time.perf_counter()
        edge = subprocess.Popen(
            [BIN / "fl-edge", "--id", "7", "--broker", broker.url, "--state-dir", directory / "edge"],
            stderr=subprocess.DEVNULL,
        )
        first = watch.until(on("fl/register/7")) - started
        second = watch.until(on("fl/register/7", b'"manifest":"')) - started
        started = time.perf_counter()
        light = subprocess.Popen(
            [
                BIN / "fl-edge",
                "--id",
                "6",
                "--light",
                "--broker",
                broker.url,
                "--state-dir",
                directory / "light",
            ],
            stderr=subprocess.DEVNULL,
        )
        light_first = watch.until(on("fl/register/6")) - started
        light_memory = max(map(resident_mb, (light.pid, *children(light.pid))))
        for process in (light, edge, aggregator):
            process.terminate()
            process.wait(20)
    return {
        "aggregator_born": born,
        "edge_registered": first,
        "edge_ready": second,
        "light_edge_registered": light_first,
        "import_torch": import_torch(),
    }, light_memory


def main() -> None:
    """Measures several times, and prints the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    import_torch()  # the first one reads the files from the disk
    seen: list[dict[str, float]] = []
    memory: list[float] = []
    for _ in range(arguments.runs):
        with tempfile.TemporaryDirectory() as scratch:
            seconds, resident = once(Path(scratch))
            seen.append(seconds)
            memory.append(resident)
    found: dict[str, Any] = {"benchmark": "startup", "runs": arguments.runs}
    for name in seen[0]:
        found[f"{name}_seconds"] = round(statistics.median(one[name] for one in seen), 3)
    found["edge_ready_over_import_seconds"] = round(
        statistics.median(one["edge_ready"] - one["import_torch"] for one in seen), 3
    )
    found["light_edge_resident_mb"] = round(statistics.median(memory), 1)
    overhead = subprocess.run(
        [sys.executable, Path(__file__).parent / "round_overhead.py", "--params", "10", "--rounds", "50"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found["trivial_round_seconds"] = json.loads(overhead.stdout.splitlines()[-1])["seconds_per_round"]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
