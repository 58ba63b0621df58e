"""Compares learning rates for a task on three divisions of its data: what its `TrainingDefaults` are chosen by.

FedAvg in one process, without a broker: 20 edges, 10 a round. Prints one JSON line: the accuracy on the test split
after the last round, by division and learning rate (momentum 0.9), for each seed; null if training diverged.

    python benchmarks/task_defaults.py --task cifar10 --data DIR --train-examples 10000 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

from fl_edge.errors import DivergedError
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.task import LoadContext
from fl_edge.training import local_training
from fl_shared.protocol.messages import Partition, TrainingSettings

EDGES: Final = 20
PER_ROUND: Final = 10
SCHEMES: Final = ("iid", "dirichlet:0.1", "shards")


def accuracy(arguments: argparse.Namespace, scheme: str, lr: float, seed: int) -> float | None:
    """Trains, and returns the accuracy on the test split; null if the training of an edge diverges."""
    local_training.configure_torch()
    task = load_task(arguments.task)
    parts = [
        task.load(LoadContext(str(index), Partition(index=index, count=EDGES, scheme=scheme, seed=seed,
                                                    holdout=0.0, examples=arguments.train_examples), arguments.data))
        for index in range(EDGES)
    ]  # fmt: skip
    manifest, weights = local_training.initial_weights(task, seed)
    settings = TrainingSettings(epochs=arguments.epochs, batch_size=32, lr=lr, momentum=0.9, seed=seed)
    cohorts = np.random.default_rng(seed)
    for number in range(1, arguments.rounds + 1):
        total, examples = np.zeros(len(weights)), 0
        for edge in cohorts.choice(EDGES, PER_ROUND, replace=False):
            try:
                update = local_training.train_update(
                    task, parts[edge], weights.copy(), manifest, settings, number, str(edge), lambda: False
                )
            except DivergedError:
                return None
            total += update.examples * update.delta.astype(np.float64)
            examples += update.examples
        weights = (weights + total / examples).astype(np.float32)
    scores = local_training.evaluate(task, weights, manifest, task.load_test(arguments.data))
    return round(scores.metrics["accuracy"], 4)


def main() -> None:
    """Prints one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="fashion-mnist")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--train-examples", type=int)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--lr", type=float, nargs="+", default=[0.005, 0.01, 0.02, 0.05])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    cells = list(itertools.product(SCHEMES, arguments.lr, arguments.seeds))
    result: dict[str, list[float | None]] = {}
    with ProcessPoolExecutor(arguments.workers) as pool:
        found = pool.map(accuracy, [arguments] * len(cells), *zip(*cells, strict=True))
        for (scheme, lr, seed), value in zip(cells, found, strict=True):
            result.setdefault(f"{scheme} {lr:g}", []).append(value)
            print(f"{scheme}, lr {lr:g}, seed {seed}: {value}", file=sys.stderr, flush=True)
    print(json.dumps({"benchmark": "task_defaults", **vars(arguments) | {"data": None}, "accuracy": result}))


if __name__ == "__main__":
    main()
