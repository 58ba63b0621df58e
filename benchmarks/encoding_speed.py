"""What each encoding makes of one real update, and what that costs. One JSON line for each encoding.

    python benchmarks/encoding_speed.py [--task fashion-mnist] [--epochs-before 3] [--lr 0.01] [--tries 5]

An edge with a twentieth of the data trains some epochs, and then one more, whose change is encoded. ``of_f32``: bytes
as a fraction of those of float32. ``encode``, ``check`` and ``decode``: CPU seconds on one core for a GB of float32
values (2.5 · 10⁸), the least of some tries; the aggregator checks an update once, and decodes it when it adds it up.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from fl_edge.training.factory import executor_for
from fl_shared.protocol.messages import Partition, TrainingRequest
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.encodings.section import SectionFormat
from fl_shared.tensors.manifest import Manifest, Vector

BLOCK: Final = 2**15
"""Values that the fold reads at a time."""


def trained(task: str, epochs_before: int, lr: float) -> tuple[Manifest, Vector]:
    """Returns what an epoch changes after ``epochs_before`` others."""
    executor = executor_for(task, None, "cpu")
    made: list[Vector] = []

    def allocate(values: int) -> Vector:
        made.append(np.empty(values, np.float32))
        return made[-1]

    manifest = executor.initial_weights(0, allocate)
    weights = made[-1].copy()
    part = Partition(index=0, count=20, scheme="iid", seed=0, holdout=0.1)
    settings = TrainingRequest(epochs=1, batch_size=32, lr=lr, momentum=0.9, seed=0)
    for number in range(epochs_before + 1):
        update = executor.train(
            weights.copy(), manifest, part, settings, 1 + number, "0", lambda: False, allocate
        )
        weights += update.delta
    return manifest, update.delta


def seconds(action: Callable[[], object], tries: int) -> float:
    """Returns the CPU seconds of the fastest of some calls."""
    found = math.inf
    for _ in range(tries):
        begun = time.process_time()
        action()
        found = min(found, time.process_time() - begun)
    return found


def measured(name: str, manifest: Manifest, delta: Vector, tries: int) -> dict[str, Any]:
    """Returns the line of an encoding."""
    form, exact = SectionFormat.of(name, manifest), FLOAT32.size(len(delta))
    data = bytes(form.encode(delta, 0))
    values, out = form.values_in(data), np.empty(BLOCK, np.float32)

    def decode() -> None:
        for start in range(0, len(values), BLOCK):
            block = values[start : start + BLOCK]
            out[: len(block)] = block

    times = {
        "encode": seconds(lambda: form.encode(delta, 0), tries),
        "check": seconds(lambda: form.check(data, math.inf), tries),
        "decode": seconds(decode, tries),
    }
    return {
        "benchmark": "encoding-speed", "encoding": name, "values": len(delta),
        "of_f32": round(len(data) / exact, 4),
        **{step: round(value / (exact / 1e9), 2) for step, value in times.items()},
    }  # fmt: skip


def main() -> None:
    """Prints a line for each encoding."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", default="fashion-mnist")
    parser.add_argument("--encodings", default="f32,shuffle-deflate,bf16,q8,topk:0.1,topk:0.01")
    parser.add_argument("--epochs-before", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--tries", type=int, default=5)
    options = parser.parse_args()
    manifest, delta = trained(options.task, options.epochs_before, options.lr)
    for name in options.encodings.split(","):
        print(
            json.dumps({"task": options.task, **measured(name, manifest, delta, options.tries)}), flush=True
        )


if __name__ == "__main__":
    main()
