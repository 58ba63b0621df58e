"""Compares what can be done about slow and lost edges, in virtual time and without training: one JSON line.

    python benchmarks/stragglers.py [--clients 100] [--per-round 10] [--rounds 100] [--seeds 0,1,2] [--write]
    python benchmarks/stragglers.py --table benchmarks/results/stragglers.jsonl

Each edge has 100 examples and trains 10 epochs. ``seconds``: virtual time of a round in the mean, of the run from its
first to its last round; of an asynchronous run, of ``--per-round`` updates. ``p90``: of the slowest tenth of the rounds
at least so much. ``wasted``: trainings begun for each that is in a version, minus one. ``short``: rounds that were
closed with less than ``--per-round`` updates, of 100. ``abandoned``: rounds below the quorum, of 100. ``slow``: the
share of the updates that came from the slowest third of the edges, and ``weight``: their share of the weights, which
are smaller the staler an update is. Each figure is a list with one value a seed. ``--write``: the line goes to
``results/stragglers.jsonl``, too. ``--table`` runs nothing: it prints the last line of a file as the table of
``docs/simulation.md``.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import measured_lines

sys.path.insert(0, str(Path(__file__).parents[1]))

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.configuration.staleness import parse_staleness
from fl_aggregator.monitoring.views.round_record import RoundRecord, read_records
from fl_aggregator.round import effects as do
from fl_aggregator.round.events import UpdateMetadata
from fl_aggregator.round.state import Run
from fl_aggregator.server import launch as launches
from fl_edge.runtime.worker_setup import EdgeSettings
from fl_mqtt.simulation.virtual.aggregator import Aggregator
from fl_mqtt.simulation.virtual.devices import Devices
from fl_mqtt.simulation.virtual.fleet import Fleet
from fl_mqtt.simulation.virtual.network import Network
from fl_mqtt.simulation.virtual.specification import read_specification
from fl_mqtt.simulation.virtual.world import World
from tests.support.virtual_federation import VALUES, InstantJobs

PRESETS: Final = ("gateways", "phones")
NEVER: Final = 1e6
POLICIES: Final[dict[str, dict[str, Any]]] = {
    "wait for all who are selected": {"grace": NEVER, "deadline": 3600.0},
    "substitutes": {"deadline": 3600.0},
    "substitutes, `--deadline 30`": {"deadline": 30.0},
    "`--over-select 3`": {"deadline": 3600.0, "over_select": 3},
    "`--over-select 6`": {"deadline": 3600.0, "over_select": 6},
    "`--pace auto`": {"deadline": 3600.0, "pace": "auto"},
    "`--pace auto:quantile=0.7`": {"deadline": 3600.0, "pace": "auto:quantile=0.7"},
    "`--pace auto:quantile=0.6,factor=1.1`": {"deadline": 3600.0, "pace": "auto:quantile=0.6,factor=1.1"},
    "`--mode async --buffer 5`": {"deadline": 3600.0, "mode": "async", "buffer": 5},
    "`--mode async --buffer 10`": {"deadline": 3600.0, "mode": "async", "buffer": 10},
    "`--mode async --buffer 5 --max-staleness 100`": {
        "deadline": 3600.0, "mode": "async", "buffer": 5, "max_staleness": 100,
    },
}  # fmt: skip
"""What is compared. All but the first select a substitute as soon as an edge is lost. Asynchronous runs have as many
edges at work as others select, and as many updates in all."""
COLUMNS: Final = {
    "seconds": "s a round",
    "p90": "slowest tenth, s",
    "wasted": "wasted",
    "short": "short",
    "abandoned": "abandoned",
    "slow": "from the slowest third",
    "weight": "its weight",
}


def run(
    preset: str, policy: dict[str, Any], options: argparse.Namespace, seed: int, path: Path
) -> dict[str, float]:
    """Returns the figures of one run."""
    buffer = policy.get("buffer")
    size = {"per_round": options.per_round} if buffer is None else {"concurrency": options.per_round}
    settings = Settings.model_validate(
        {
            "task": f"synthetic-{VALUES}", "clients": options.clients, "holdout": 0.0, "evaluate_every": 10**6,
            "rounds": options.rounds * options.per_round // (buffer or options.per_round), "grace": 0.0, "wait": 1e5,
            "seed": seed, **size, **policy,
        }
    )  # fmt: skip
    devices = Devices(read_specification(preset), seed)
    world = World()
    network = Network(world, devices.losses(1))
    begun: Counter[str] = Counter()

    class CountedJobs(InstantJobs):
        def begin(self, client: str, work: Any, due: float) -> None:
            begun[type(work.effect).__name__] += 1
            super().begin(client, work, due)

    with closing(launches.new(settings, path)) as launch:
        launch.directory.write_run(launch.record)
        names = [str(number) for number in range(settings.clients)]
        aggregator = Aggregator(launch, world, network)
        edges = [EdgeSettings(name, ("train",), path / "edges" / name) for name in names]
        Fleet(
            world, network, CountedJobs(), devices, edges,
            task=settings.task, epochs=10, light=False, chunk_size=2**20,
        )  # fmt: skip
        averaged = observe_averages(aggregator)
        aggregator.begin()
        while not aggregator.state.ended:
            world.step()
        rounds = list(read_records(launch.directory.history()))
        if not any(record.outcome == "committed" for record in rounds):
            sys.exit(f"{preset}, seed {seed}: no version, take more --clients: {aggregator.state.phase}")
        slowest = frozenset(sorted(names, key=lambda name: devices.device(name).speed)[: len(names) // 3])
        found = figures(rounds, settings.per_round, begun["Train"], slowest)
        factor = parse_staleness(settings.staleness or "constant")
        slow = sum(factor(update.staleness) for update in averaged if update.client in slowest)
        found["weight"] = slow / sum(factor(update.staleness) for update in averaged)
        found["seconds"] *= options.per_round / settings.per_round
        return found


def observe_averages(aggregator: Aggregator) -> list[UpdateMetadata]:
    """Returns a list that all updates will be in from whose average a version is made."""
    found: list[UpdateMetadata] = []
    perform = aggregator.runner.interpreter.perform

    def observed(effect: do.Effect, state: Run) -> None:
        if isinstance(effect, do.Average) and effect.base is not None:
            found.extend(effect.contributors)
        perform(effect, state)

    aggregator.runner.interpreter.perform = observed  # type: ignore[method-assign]
    return found


def figures(
    rounds: list[RoundRecord], per_round: int, begun: int, slowest: frozenset[str]
) -> dict[str, float]:
    """What the rounds of a run took and gave. The first one, in which nothing is known yet, counts too."""
    took = sorted(record.duration for record in rounds)
    participants = [name for record in rounds for name in record.participants]
    committed = [record for record in rounds if record.outcome == "committed"]
    return {
        "seconds": sum(took) / len(committed),
        "p90": took[math.ceil(0.9 * len(took)) - 1],
        "wasted": begun / len(participants) - 1,
        "short": 100 * sum(len(record.participants) < per_round for record in committed) / len(rounds),
        "abandoned": 100 * (len(rounds) - len(committed)) / len(rounds),
        "slow": sum(name in slowest for name in participants) / len(participants),
    }


Figures = dict[str, dict[str, dict[str, list[float]]]]
"""By preset, policy and column: one value a seed."""


def measured(options: argparse.Namespace) -> Figures:
    """Runs all policies with all presets and seeds."""
    scratch = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    found: Figures = {}
    for preset in PRESETS:
        for name, policy in POLICIES.items():
            print(f"{preset}, {name} …", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(dir=scratch) as directory:
                runs = [
                    run(preset, policy, options, seed, Path(directory) / str(seed)) for seed in options.seeds
                ]
            found.setdefault(preset, {})[name] = {
                key: [round(one[key], 3) for one in runs] for key in COLUMNS
            }
    return found


def markdown(found: Figures) -> str:
    """The means over the seeds as a table, and the range of the seconds."""
    lines = [f"| | | {' | '.join(COLUMNS.values())} |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for preset, policies in found.items():
        for name, figures in policies.items():
            mean, seconds = {key: fmean(values) for key, values in figures.items()}, figures["seconds"]
            cells = [
                f"{mean['seconds']:.1f} ({min(seconds):.1f}–{max(seconds):.1f})", f"{mean['p90']:.1f}",
                f"{100 * mean['wasted']:.0f} %", f"{mean['short']:.0f} %", f"{mean['abandoned']:.0f} %",
                f"{100 * mean['slow']:.0f} %", f"{100 * mean['weight']:.0f} %",
            ]  # fmt: skip
            lines.append(f"| `{preset}` | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints one line of JSON, or the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--per-round", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--write", action="store_true", help="append the line to results/stragglers.jsonl")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print its last line as a table instead")
    options = parser.parse_args()
    if options.table is not None:
        print(markdown(measured_lines.read_lines(options.table)[-1]["runs"]))
        return
    began = time.process_time()
    found = measured(options)
    settings = {name: value for name, value in vars(options).items() if name not in {"table", "write"}}
    spent = round(time.process_time() - began, 1)
    line = {"benchmark": "stragglers", **settings, "cpu_seconds": spent, "runs": found}
    measured_lines.report(line, write=options.write)


if __name__ == "__main__":
    main()
