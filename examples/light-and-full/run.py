"""Light and full edges in one run: two edges train with PyTorch, two without it, as on devices with little memory.

    python examples/light-and-full/run.py [DIR]

starts a broker, the edges in two processes and the aggregator, writes to DIR (default: runs/light-and-full), and shows
what each edge has learned. The dense model of digits-mlp is the same for both kinds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fl_mqtt import Aggregator, Edge
from fl_shared.system.mosquitto import MosquittoChild


def main() -> None:
    """Runs the federation."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/light-and-full")
    with (
        MosquittoChild(directory / "broker") as broker,
        Edge("full-0,full-1", broker=broker.url, evaluator="evaluator", state_dir=directory / "full"),
        Edge("light-0,light-1", broker=broker.url, light=True, state_dir=directory / "light") as light,
    ):
        run = Aggregator(
            "digits-mlp", broker=broker.url, clients=4, rounds=10, run_dir=directory / "run", log=print
        )
        result = run.run()
        print("the light edges:", next(line for line in light.log.splitlines() if "without torch" in line))
    for name, edge in sorted(result.edges.items()):
        print(
            f"{name}: {edge.rounds} updates of {edge.examples} examples, accuracy {edge.after['accuracy']:.3f}"
        )


if __name__ == "__main__":
    main()
