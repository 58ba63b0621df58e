"""What it costs to combine a round's updates, for each combination. One JSON line.

    python benchmarks/strategies.py [UPDATES] [VALUES] [--write]
    python benchmarks/strategies.py --table benchmarks/results/strategies.jsonl

For each: processor seconds of one thread, from the first update to the next model; how many times those of the
exact sum of the same updates (`fedavg`) that is; and the peak of anonymous memory beyond the base, in MB and in models.
Updates lie in files, as in the spool; SCAFFOLD's control is as long as the change. Medians of five for the seconds.
``--write``: the line goes to ``results/strategies.jsonl``, too. ``--table`` measures nothing: it prints the last line
of a file as the table of ``docs/performance.md``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

if __name__ == "__main__":  # before NumPy is imported, and not in a process that only reads the table
    os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import measured_lines
import numpy as np

from fl_aggregator.aggregation.combining import Combiner, first_state
from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.validation import CheckedSection
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.events import UpdateMetadata
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Vector, manifest_of

REPEATS = 5
STRATEGIES = (
    "fedavg", "fedprox", "fednova:momentum=0.9", "fedadam", "fedexp", "scaffold",
    "median", "trimmed-mean", "multi-krum:bad=20", "bulyan:bad=20", "geometric-median",
    "centered-clip",
)  # fmt: skip


def anonymous_bytes() -> int:
    """The anonymous resident memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Peak:
    """The largest `anonymous_bytes` while it is watched, each 5 ms, beyond that at its begin."""

    def __enter__(self) -> Peak:
        self.first = self.most = anonymous_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.most = max(self.most, anonymous_bytes())

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def markdown(found: dict[str, dict[str, float]]) -> str:
    """The table of ``docs/performance.md``."""
    lines = ["| strategy | CPU seconds | of fedavg | memory, MB |", "| --- | --: | --: | --: |"]
    for name, row in found.items():
        lines.append(
            f"| `{name}` | {row['cpu_seconds']:.2f} | {row['of_fedavg']:.1f} | {row['anonymous_mb']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures and prints, or prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("updates", type=int, nargs="?", default=200)
    parser.add_argument("values", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--write", action="store_true", help="append the line to results/strategies.jsonl")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table is not None:
        print(markdown(measured_lines.read_lines(options.table)[-1]["strategies"]))
        return
    updates, values = options.updates, options.values
    random = np.random.default_rng(0)
    base = random.normal(size=values).astype(np.float32)
    manifest = manifest_of({"a": base})
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for k in range(updates):
            (Path(folder) / f"{k:03}").write_bytes(
                FLOAT32.encode(random.normal(0, 0.01, values).astype(np.float32), seed=0)
            )

        def read(client: str) -> Vector:
            return FLOAT32.decode(np.memmap(Path(folder) / client, np.uint8, "r").data)

        for name in STRATEGIES:
            settings = Settings(clients=updates, per_round=updates, quorum=updates, strategy=name, epochs=1)
            strategy = registry.load(settings)
            seconds, peaks = [], []
            for _ in range(REPEATS):
                state = first_state(strategy, values)
                with Peak() as peak:
                    started = time.thread_time()
                    combiner = Combiner(strategy, manifest, settings)
                    for k in range(updates):
                        metadata = UpdateMetadata(
                            client=f"{k:03}", session="", round=1, base="", digest="", manifest="", examples=100 + k,
                            steps=1, size=FLOAT32.size(values),
                        )  # fmt: skip
                        change = read(f"{k:03}")
                        names = () if strategy.correct is None else strategy.correct.sections
                        combiner.add(metadata, change, 1.0, dict.fromkeys(names, CheckedSection(change, 1.0)))
                    combiner.next_model(1, base, state, read, (0, sum(range(100, 100 + updates))))
                    seconds.append(time.thread_time() - started)
                peaks.append(peak.most - peak.first)
            print(f"{name}: {[round(one, 2) for one in seconds]} s", file=sys.stderr)
            found[name] = {
                "cpu_seconds": round(statistics.median(seconds), 3),
                "anonymous_mb": round(max(peaks) / 1e6, 1),
                "models": round(max(peaks) / FLOAT32.size(values), 2),
            }
    for row in found.values():
        row["of_fedavg"] = round(row["cpu_seconds"] / found["fedavg"]["cpu_seconds"], 2)
    line = {"benchmark": "strategies", "updates": updates, "values": values, "strategies": found}
    measured_lines.report(line, write=options.write)


if __name__ == "__main__":
    main()
