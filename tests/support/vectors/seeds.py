"""``seeds.json``: an edge's seeds (5.4, 3.9), what NumPy draws from them, and partitions (4.14)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from fl_edge.data.partition import split
from fl_edge.tasks.epochs import numpy_orders
from fl_edge.training.executor import edge_seed, encoding_seed
from fl_shared.protocol.messages import Partition

CASES = ((0, 1, "0"), (7, 3, "lab-a"), (2**40, 12, "edge_17"))
"""Seed of the run, round, client."""
LABELS = np.arange(23) % 3
PARTITIONS = (
    Partition(index=0, count=1, scheme="iid", seed=0, holdout=0.2),
    Partition(index=1, count=4, scheme="iid", seed=0, holdout=0.2),
    Partition(index=3, count=4, scheme="iid", seed=5, holdout=0.0, examples=14),
    Partition(index=2, count=4, scheme="own", seed=5, holdout=0.1),
)


def vectors() -> dict[str, Any]:
    """Integers of 64 bits and more are texts of decimal digits."""
    return {
        "edges": [_edge(*case) for case in CASES],
        "partitions": {
            "examples": len(LABELS),
            "cases": [_partition(one) for one in PARTITIONS],
        },
    }


def _edge(seed: int, round_number: int, client: str) -> dict[str, Any]:
    sequence = edge_seed(seed, round_number, client)
    orders = numpy_orders(edge_seed(seed, round_number, client))
    encoding = encoding_seed(seed, round_number, client)
    return {
        "seed": str(seed),
        "round": round_number,
        "client": client,
        "h": str(int.from_bytes(hashlib.sha256(client.encode()).digest()[:8], "big")),
        "state": sequence.generate_state(8, np.uint32).tolist(),
        "pcg64": _texts(np.random.PCG64(sequence).random_raw(4)),
        "orders_of_10": [orders(10).tolist() for _ in range(2)],
        "encoding_seed": str(encoding),
        "encoding_pcg64": _texts(np.random.PCG64(encoding).random_raw(4)),
    }


def _partition(partition: Partition) -> dict[str, Any]:
    training, holdout = split(LABELS, partition)
    return {
        "partition": partition.model_dump(),
        "training": training.tolist(),
        "holdout": holdout.tolist(),
    }


def _texts(numbers: Any) -> list[str]:
    return [str(number) for number in numbers.tolist()]
