"""A process with a pool of two workers that runs until it is killed.

``python -m tests.support.pool_parent importing|busy`` prints the workers' process ids, and ``go`` once they
import torch or train.
"""

from __future__ import annotations

import sys
import time
from queue import SimpleQueue

from fl_edge.workers.jobs import JobResult, TrainOutcome
from fl_edge.workers.pool import Pool
from fl_edge.workers.protocol import CacheModel
from tests.support.builders import partition, training_request


def main(state: str) -> None:
    results: SimpleQueue[JobResult] = SimpleQueue()
    pool = Pool(2, None, "cpu", results.put)
    while any(slot.process is None for slot in pool._slots):
        time.sleep(0.01)
    print(*[slot.process.pid for slot in pool._slots if slot.process is not None], flush=True)  # noqa: T201
    if state == "busy":
        settings = training_request(epochs=10**6, lr=1e-9)
        pool.train("e", "digits", partition(), None, settings, 0)
        first = results.get(timeout=60).outcome
        assert isinstance(first, TrainOutcome)
        for _ in range(2):
            model = CacheModel("d", first.manifest, first.delta)
            pool.train("e", "digits", partition(), model, settings, 1)
        while any(slot.job is None for slot in pool._slots):
            time.sleep(0.05)
    time.sleep(1)
    print("go", flush=True)  # noqa: T201
    time.sleep(600)


if __name__ == "__main__":
    main(sys.argv[1])
