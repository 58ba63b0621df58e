"""Compares a run over MQTT with a plain FedAvg loop in PyTorch with the same seed, partition and cohorts.

    python benchmarks/reference_workload.py [--task cifar10] [--data DIR] [--train-examples 10000] [--lr 0.01]
        [--precision bf16]

The workload is Fashion-MNIST (6,000 images), MNIST or CIFAR-10, 20 edges (IID), 10 in each round, batch size 32,
learning rate 0.05, no momentum, no holdout. First runs `fl-aggregator simulate` (a broker, a fleet and an
aggregator on this machine), then the loop. The loop takes the cohorts from the run's history, and shares no other
part of the training with it: it uses PyTorch's own memory layout and float32 averages. Both are tested on the
10,000 test images. Prints one JSON line: ``accuracy``, ``loop_accuracy``, ``points`` (the difference in percentage
points), ``seconds`` and ``loop_seconds`` (one process, all cores that it may use), ``ratio_to_loop``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from fl_edge.tasks.registry import load_task
from fl_edge.tasks.task import Examples, LoadContext, Task
from fl_shared.protocol.messages import Partition


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


State = dict[str, np.ndarray[Any, np.dtype[Any]]]


def say(text: str) -> None:
    """Prints a line on standard error at once."""
    print(text, file=sys.stderr, flush=True)


def over_mqtt(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Runs ``simulate``. Returns its JSON result, with the cohorts of the committed rounds."""
    command = [
        str(Path(sys.executable).with_name("fl-aggregator")), "simulate", "--task", arguments.task,
        "--clients", "20", "--per-round", "10", "--rounds", str(arguments.rounds),
        "--epochs", str(arguments.epochs), "--batch-size", "32", "--lr", str(arguments.lr), "--momentum", "0",
        "--holdout", "0", "--train-examples", str(arguments.train_examples), "--seed", str(arguments.seed),
        "--precision", arguments.precision, "--run-dir", str(directory), "--json",
    ]  # fmt: skip
    if arguments.data is not None:
        command += ["--data", str(arguments.data)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    lines = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    result["cohorts"] = [line["participants"] for line in lines if line["outcome"] == "committed"]
    return result


def train(model: nn.Module, examples: Examples, epochs: int, lr: float, seed: int) -> None:
    """Trains ``model`` in place by plain SGD, with batches of 32."""
    model.train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        order = torch.randperm(len(examples), generator=generator)
        for start in range(0, len(order), 32):
            batch = order[start : start + 32]
            optimizer.zero_grad()
            functional.cross_entropy(model(examples.inputs[batch]), examples.labels[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def accuracy(model: nn.Module, examples: Examples) -> float:
    """The fraction of examples that the model classifies correctly."""
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(examples.inputs[i : i + 500]).argmax(1) == examples.labels[i : i + 500]).sum())
            for i in range(0, len(examples), 500)
        )
    return right / len(examples)


def plain_loop(arguments: argparse.Namespace, cohorts: list[list[str]]) -> tuple[float, float]:
    """Trains in a loop. Returns the accuracy after the last round, and the seconds with all evaluations."""
    torch.set_num_threads(cores())
    task: Task = load_task(arguments.task)
    parts = [
        task.load(
            LoadContext(str(index), Partition(index=index, count=20, scheme="iid", seed=arguments.seed, holdout=0.0,
                                              examples=arguments.train_examples), arguments.data)
        ).train
        for index in range(20)
    ]  # fmt: skip
    test = task.load_test(arguments.data)
    model = task.model(arguments.seed).to(memory_format=torch.contiguous_format)
    weights: State = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    reached = 0.0
    started = time.perf_counter()
    for number, cohort in enumerate(cohorts, 1):
        total = sum(len(parts[int(client)]) for client in cohort)
        mean: State = {name: np.zeros_like(value) for name, value in weights.items()}
        for client in cohort:
            model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
            train(
                model,
                parts[int(client)],
                arguments.epochs,
                arguments.lr,
                arguments.seed * 1_000_003 + number * 1009 + int(client),
            )
            for name, value in model.state_dict().items():
                mean[name] += value.numpy() * (len(parts[int(client)]) / total)
        weights = mean
        model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        reached = accuracy(model, test)
        say(f"loop: round {number}: accuracy {reached:.4f}")
    return reached, time.perf_counter() - started


def main() -> None:
    """Runs both, and prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--task", default="fashion-mnist", choices=("fashion-mnist", "mnist", "cifar10"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--train-examples", type=int, default=6000)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--precision", default="float32", choices=("float32", "bf16"), help="of the run, not the loop"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = over_mqtt(arguments, Path(scratch) / "run")
    loop_accuracy, loop_seconds = plain_loop(arguments, run["cohorts"])
    print(
        json.dumps(
            {
                "benchmark": "reference_workload",
                "task": arguments.task,
                "train_examples": arguments.train_examples,
                "epochs": arguments.epochs,
                "lr": arguments.lr,
                "precision": arguments.precision,
                "rounds": run["rounds"],
                "accuracy": run["metrics"]["accuracy"],
                "loop_accuracy": loop_accuracy,
                "points": round(100 * (run["metrics"]["accuracy"] - loop_accuracy), 2),
                "seconds": run["seconds"],
                "loop_seconds": round(loop_seconds, 1),
                "ratio_to_loop": round(run["seconds"] / loop_seconds, 3),
                "cores": cores(),
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
