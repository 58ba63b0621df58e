"""What encodings save and cost on real Fashion-MNIST. One JSON line for each cell and seed; a table on standard error.

    python benchmarks/update_encodings.py [--seeds 0,1,2] [--rounds 50] [--only q8,topk:0.01] [--train-examples N] \
        [--task small-fashion] FILE

Twenty edges with Dirichlet 0.5, ten of them a round, `simulate` with one worker. A line has the bytes of a round up and
down (medians), the accuracy on the test split after 10 rounds and after the last, and the CPU seconds of a round: of
the edges' process with its worker, and of the aggregator. Cells of one seed differ in the encoding alone. Lines that
FILE has already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

CELLS: Final[dict[str, dict[str, str]]] = {
    "f32": {},
    "shuffle-deflate": {"encoding": "shuffle-deflate"},
    "bf16": {"encoding": "bf16"},
    "q8": {"encoding": "q8"},
    "topk:0.1": {"encoding": "topk:0.1"},
    "topk:0.01": {"encoding": "topk:0.01"},
    "model bf16": {"model_encoding": "bf16"},
    "q8, model bf16": {"encoding": "q8", "model_encoding": "bf16"},
}
SETTINGS: Final[dict[str, Any]] = {
    "clients": 20, "per_round": 10, "partition": "dirichlet:0.5", "epochs": 1,
    "evaluate_every": 10, "workers": 1,
}  # fmt: skip
AVERAGED: Final = ("up", "down", "accuracy_early", "accuracy", "cpu_edges", "cpu_aggregator")
EARLY: Final = 10
"""The round after which the accuracy is reported besides the last."""


def measure(name: str, seed: int, rounds: int, train_examples: int | None, task: str) -> dict[str, Any]:
    """Returns the line of a cell."""
    from learning_task import TASKS

    from fl_mqtt import simulate

    before = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    limited: dict[str, Any] = {} if train_examples is None else {"train_examples": train_examples}
    with tempfile.TemporaryDirectory() as directory:
        result = simulate(
            TASKS[task],
            **{**SETTINGS, **CELLS[name], **limited},
            rounds=rounds,
            seed=seed,
            run_dir=f"{directory}/run",
        )
    after = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own, children = (
        (b.ru_utime + b.ru_stime - a.ru_utime - a.ru_stime) / rounds
        for a, b in zip(before, after, strict=True)
    )
    lines = [line for line in result.history if line["version"] and line["outcome"] == "committed"]
    accuracy = {line["version"]: line["metrics"].get("accuracy") for line in lines}
    return {
        "benchmark": "encodings", "cell": name, "seed": seed, "task": task, "rounds": rounds,
        "train_examples": train_examples,
        "up": statistics.median(line["bytes"]["up"] for line in lines),
        "down": statistics.median(line["bytes"]["down"] for line in lines),
        "accuracy_early": accuracy.get(min(EARLY, rounds)), "accuracy": accuracy[rounds],
        "cpu_aggregator": round(own, 3), "cpu_edges": round(children, 3),
    }  # fmt: skip


def table(lines: list[dict[str, Any]]) -> str:
    """Returns the means over seeds as a table, each cell beside f32 of the same seeds."""
    columns = (
        "encoding",
        "seeds",
        "up, MB",
        "of f32",
        "down, MB",
        f"after {EARLY}",
        f"after {lines[0]['rounds']}",
    )
    head = " | ".join((*columns, "points", "edges, s", "aggregator, s"))
    rows = [f"| {head} |", "| --- |" + " --: |" * 9]
    exact = {line["seed"]: line for line in lines if line["cell"] == "f32"}
    for name in CELLS:
        found = [line for line in lines if line["cell"] == name and line["seed"] in exact]
        if found:
            mean = {key: statistics.fmean(line[key] for line in found) for key in AVERAGED}
            share = statistics.fmean(line["up"] / exact[line["seed"]]["up"] for line in found)
            points = statistics.fmean(
                100 * (line["accuracy"] - exact[line["seed"]]["accuracy"]) for line in found
            )
            rows.append(
                f"| {name} | {len(found)} | {mean['up'] / 1e6:.2f} | {share:.3f} | {mean['down'] / 1e6:.2f} | "
                f"{mean['accuracy_early']:.4f} | {mean['accuracy']:.4f} | {points:+.2f} | "
                f"{mean['cpu_edges']:.2f} | {mean['cpu_aggregator']:.2f} |"
            )
    return "\n".join(rows)


def main() -> None:
    """Measures what the file does not have yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--only", help="names of cells, with commas between them")
    parser.add_argument("--train-examples", type=int)
    parser.add_argument(
        "--task", default="fashion-mnist", help="or small-fashion, a CNN of 20,522 parameters"
    )
    options = parser.parse_args()
    chosen = list(CELLS) if options.only is None else options.only.split(",")
    lines = (
        [json.loads(text) for text in options.file.read_text().splitlines()] if options.file.exists() else []
    )
    wanted = options.task, options.rounds, options.train_examples
    lines = [line for line in lines if (line["task"], line["rounds"], line["train_examples"]) == wanted]
    for seed in map(int, options.seeds.split(",")):
        for name in chosen:
            if not any((line["cell"], line["seed"]) == (name, seed) for line in lines):
                lines.append(measure(name, seed, options.rounds, options.train_examples, options.task))
                with options.file.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                print(json.dumps(lines[-1]), flush=True)
    print(table(lines), file=sys.stderr)


if __name__ == "__main__":
    main()
