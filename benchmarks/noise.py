"""Measures the arithmetic of private runs on one core: clipping updates, and the noise of a release. No broker.

    python benchmarks/noise.py --params 10000000 --keys 4

``copy``: copies an update. ``read``: reads it once, by the dot product of BLAS. ``norm``: takes its norm: all that
clipping adds to a fold. ``fold``: adds it to the exact sum. ``clip``: takes its norm, and adds it clipped.
``noise_one_key``: makes noise from one key and adds it to a sum; ``noise_all_keys``: from ``keys`` keys, as correlated
noise is. ``edge``: makes the integers of an edge's clipped update with its part of distributed noise. ``numpy``: noise
of NumPy's `standard_normal`, of which whoever has seen some values can guess all.
CPU seconds, the least of some tries in turns. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from fl_aggregator.aggregation.exact_sum import ExactSum
from fl_shared.privacy.clipping import clip_factor
from fl_shared.privacy.distributed_noise import NoisyIntegers
from fl_shared.privacy.gaussian_noise import BLOCK, KEY, noise
from fl_shared.tensors.manifest import magnitude
from fl_shared.tensors.norms import norm

DEVIATION: Final = 2.0**28
SCALE_BITS: Final = 28
PIECE: Final = 8 * BLOCK
"""Values of noise that are made at a time, as where they are added to a sum."""


def fastest(actions: dict[str, Callable[[], object]], tries: int) -> dict[str, float]:
    """Returns the least CPU seconds of each action, all in turns."""
    found = dict.fromkeys(actions, math.inf)
    for _ in range(tries):
        for name, action in actions.items():
            begun = time.process_time()
            action()
            found[name] = min(found[name], time.process_time() - begun)
    return {name: round(seconds, 4) for name, seconds in found.items()}


def main() -> None:
    """Measures one size and prints the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--params", type=int, default=431_080)
    parser.add_argument("--keys", type=int, default=4)
    parser.add_argument("--tries", type=int, default=5)
    arguments = parser.parse_args()
    values: int = arguments.params
    random = np.random.default_rng(1)
    delta = random.standard_normal(values, np.float32)
    keys = [os.urandom(KEY) for _ in range(arguments.keys)]
    total, copied = np.zeros(values, np.int64), np.zeros_like(delta)
    fold = ExactSum(values, SCALE_BITS, slots=2 * arguments.tries)
    largest = magnitude(delta)

    def clip() -> None:
        length = norm(delta, [(0, values)])
        fold.add(delta, clip_factor(length, values, 1.0, SCALE_BITS), largest)

    def add_noise(count: int) -> None:
        parts = [(key, DEVIATION) for key in keys[:count]]
        for start in range(0, values, PIECE):
            total[start : start + PIECE] += noise(parts, start, min(PIECE, values - start))

    def of_edge() -> None:
        integers = NoisyIntegers(delta, 1.0, SCALE_BITS, DEVIATION, keys[0])
        for start in range(0, values, BLOCK):
            integers(start, total[start : start + BLOCK])

    def add_normal() -> None:
        for start in range(0, values, PIECE):
            total[start : start + PIECE] += random.standard_normal(min(PIECE, values - start)).astype(
                np.int64
            )

    seconds = fastest(
        {
            "copy": lambda: np.copyto(copied, delta),
            "read": lambda: delta.dot(delta),
            "norm": lambda: norm(delta, [(0, values)]),
            "fold": lambda: fold.add(delta, 1e-4, largest),
            "clip": clip,
            "noise_one_key": lambda: add_noise(1),
            "noise_all_keys": lambda: add_noise(len(keys)),
            "edge": of_edge,
            "numpy": add_normal,
        },
        arguments.tries,
    )
    print(json.dumps({"benchmark": "noise", "params": values, "keys": len(keys), **seconds}))


if __name__ == "__main__":
    main()
