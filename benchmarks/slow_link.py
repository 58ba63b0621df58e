"""A run over slow links: does it end, is anything sent twice, and are other edges held up? One JSON line.

    python benchmarks/slow_link.py             # ten edges with 10 Mbit/s each and updates of 75.8 MB: 758 MB a round
    python benchmarks/slow_link.py --edges 3 --slow 1 --parameters 50000 --kbit 64 --delay 0.1 --loss 0.02

Each edge is a process of its own, and reaches the broker through a TCP proxy (`tests/support/tcp_proxy.py`) that lets
``--kbit`` through in each direction, ``--delay`` seconds later. Of the segments (1,460 bytes), ``--loss`` stop the
stream for a second, as a lost one does until TCP sends it again. ``--slow`` of the edges have such a link, the others
none. The proxies count bytes: an edge fetches the model of each round but the first, and sends one update for each;
``up`` and ``down`` are what the slow edges have sent and received, as a multiple of that.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fl_shared.tensors.encodings.float32 import FLOAT32
from tests.support.broker import Mosquitto
from tests.support.programs import Program, history
from tests.support.tcp_proxy import TcpProxy


def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Runs the programs, and returns the line. Raises ``AssertionError`` if the run does not end well."""
    size, task = FLOAT32.size(options.parameters), f"synthetic-{options.parameters}"
    slow = options.edges if options.slow is None else options.slow
    with ExitStack() as stack:
        (directory / "broker").mkdir()
        broker = Mosquitto(directory / "broker")
        stack.callback(broker.stop)
        links = [stack.enter_context(TcpProxy(broker.port, seed=number)) for number in range(slow)]
        for link in links:
            link.limit(options.kbit * 1000 / 8)
            link.latency(options.delay, options.loss)
        begun = time.monotonic()
        aggregator = stack.enter_context(
            Program(
                directory / "a", "fl-aggregator", "start", "--broker", broker.url, "--run-dir",
                str(directory / "a" / "run"), "--task", task, "--clients", str(options.edges), "--per-round",
                str(options.edges), "--rounds", str(options.rounds), "--epochs", "1", "--holdout", "0",
                "--deadline", str(options.deadline), "--wait", "600", *options.option,
            )
        )  # fmt: skip
        for number in range(options.edges):
            url = links[number].url if number < slow else broker.url
            stack.enter_context(
                Program(
                    directory / f"e{number}", "fl-edge", "--id", str(number), "--broker", url, "--task", task,
                    "--state-dir", str(directory / f"e{number}" / "state"), "--light", "--workers", "1",
                )
            )  # fmt: skip
        aggregator.ends_well(options.deadline * (1 + options.rounds))
        seconds = time.monotonic() - begun
        lines = history(directory / "a")
        sent = sum(link.traffic.up for link in links)
        received = sum(link.traffic.down for link in links)
    trained = slow * sum(line["version"] > 0 for line in lines)
    first = size if any(line["participants"][0] in map(str, range(slow)) for line in lines[:1]) else 0
    return {
        "benchmark": "slow-link", "edges": options.edges, "slow": slow, "update_mb": round(size / 1e6, 3),
        "kbit_per_s": options.kbit, "delay": options.delay, "loss": options.loss,
        "seconds": round(seconds, 1),
        "rounds": [
            {"outcome": line["outcome"], "participants": len(line["participants"]), "missing": line["missing"],
             "seconds": round(sum(line["seconds"].values()), 1)}
            for line in lines
        ],
        "least_seconds_of_a_transfer": round(size * 8 / options.kbit / 1000, 1),
        "up": round(sent / (first + trained * size), 4), "down": round(received / (trained * size), 4),
    }  # fmt: skip


def main() -> None:
    """Prints the line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edges", type=int, default=10)
    parser.add_argument("--slow", type=int, help="how many of them have a slow link; all by default")
    parser.add_argument("--parameters", type=int, default=18_950_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--kbit", type=float, default=10_000)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, in each direction")
    parser.add_argument("--loss", type=float, default=0.0, help="share of segments, 0 to 1")
    parser.add_argument("--deadline", type=float, default=1200)
    parser.add_argument("--option", action="append", default=[], help="of the aggregator; may be repeated")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        print(json.dumps(run(options, Path(directory))), flush=True)


if __name__ == "__main__":
    main()
