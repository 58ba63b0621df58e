"""A worker answers for several edges, each with its own data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fl_edge.training.factory import executor_for
from fl_edge.workers.jobs import PredictOutcome
from fl_edge.workers.protocol import CacheModel
from fl_shared.system.shared_memory import SharedBytes
from tests.support.builders import partition
from tests.support.pool_harness import PoolHarness

TASK = "series?goal=anomaly&window=4"


def test_an_answer_depends_on_the_data_of_the_edge_that_answers(tmp_path: Path) -> None:
    for number, name in enumerate(("a", "b")):
        values = np.random.default_rng(number).normal(0, 1 + 9 * number, 60)
        (tmp_path / f"{name}.csv").write_text("\n".join(["x", *map(str, values)]))
    weights: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []

    def allocate(values: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        weights.append(np.empty(values, np.float32))
        return weights[0]

    manifest = executor_for(TASK, tmp_path, "cpu", light=True).initial_weights(0, allocate)
    names = [array.name for array in manifest.arrays]
    start = sum(array.values for array in manifest.arrays[: names.index("rounds")])
    weights[0][start] = 1  # as if statistics had been shared: the same for both edges
    model = CacheModel("m", manifest, SharedBytes.copy_of(weights[0].astype("<f4").tobytes()))
    request = json.dumps({"values": [[1], [2], [3], [4]]}).encode()
    harness = PoolHarness(1, data_dir=tmp_path, light=True)
    try:
        answers = [
            harness.expect(
                PredictOutcome,
                harness.pool.predict(
                    TASK, model, request, None, client, partition(index, scheme="natural", count=2)
                ),
            ).answer
            for index, client in enumerate(("a", "b"))
        ]
    finally:
        harness.pool.close()
    assert answers[0]["value"] == answers[1]["value"]
    assert 0 < answers[0]["threshold"] < answers[1]["threshold"]
