"""Measures how many events a second a run in virtual time handles, when training costs nothing.

    python benchmarks/virtual.py [--edges 1000] [--per-round 100] [--over-select 0] [--rounds 20] [--heterogeneity NAME]
        [--times 5] [--write]

Both machines, all messages, the real averaging of 16 parameters, checkpoints, journal and history; the edges' updates
are made up. ``cpu_seconds`` and ``wall_seconds``: the medians of ``--times`` runs. ``--write``: the line goes to
``results/virtual.jsonl``, too. Beside it: the same number of events, each of which does nothing but put the next one
into the queue.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import measured_lines

sys.path.insert(0, str(Path(__file__).parents[1]))

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.phases import Finished
from fl_mqtt.simulation.virtual.devices import Devices
from fl_mqtt.simulation.virtual.specification import preset_names, read_specification
from fl_mqtt.simulation.virtual.world import World
from tests.support.virtual_federation import VALUES, Federation


def queue_seconds(events: int, waiting: int) -> float:
    """Returns the processor time of ``events`` events in a queue of ``waiting`` that do nothing."""
    world = World()

    def again() -> None:
        world.after(1.0, again)

    for _ in range(waiting):
        world.after(1.0, again)
    began = time.process_time()
    for _ in range(events):
        world.step()
    return time.process_time() - began


def measure(settings: Settings, heterogeneity: str) -> dict[str, float]:
    """Runs once: processor time, real time, and what has happened. Nothing of the run stays in memory."""
    devices = Devices(read_specification(heterogeneity), 0)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        wall, began = time.monotonic(), time.process_time()
        federation = Federation(Path(directory) / "run", settings, device=devices.device)
        federation.run()
        seconds, wall = time.process_time() - began, time.monotonic() - wall
        federation.close()
    assert isinstance(federation.aggregator.state.phase, Finished), federation.aggregator.state.phase
    return {
        "events": federation.world.events,
        "cpu_seconds": seconds,
        "wall_seconds": wall,
        "virtual_seconds": round(federation.world.now, 3),
        "trained": len(federation.jobs.trained),
    }


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edges", type=int, default=1000)
    parser.add_argument("--per-round", type=int, default=100)
    parser.add_argument("--over-select", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--heterogeneity", choices=preset_names(), default="uniform")
    parser.add_argument("--times", type=int, default=1, help="so many runs")
    parser.add_argument("--write", action="store_true", help="append the line to results/virtual.jsonl")
    options = parser.parse_args()
    settings = Settings(
        task=f"synthetic-{VALUES}", clients=options.edges, per_round=options.per_round, rounds=options.rounds,
        over_select=options.over_select, holdout=0.0, evaluate_every=10**6, deadline=1e6, grace=0.0,
    )  # fmt: skip
    runs: list[dict[str, float]] = []
    for _ in range(options.times):
        runs.append(measure(settings, options.heterogeneity))
        gc.collect()
        print(
            f"{options.edges} edges, {options.rounds} rounds: {runs[-1]['cpu_seconds']:.2f} s",
            file=sys.stderr,
        )
    line = {
        "benchmark": "virtual",
        **{name: value for name, value in vars(options).items() if name != "write"},
        **runs[-1],
        **{name: round(median(run[name] for run in runs), 3) for name in ("cpu_seconds", "wall_seconds")},
    }
    events, empty = int(line["events"]), queue_seconds(int(line["events"]), options.edges)
    line["events_per_cpu_second"] = round(events / line["cpu_seconds"])
    line["events_per_cpu_second_of_an_empty_queue"] = round(events / empty)
    measured_lines.report(line, write=options.write)


if __name__ == "__main__":
    main()
