"""What is learnt under differential privacy: accuracy by budget, by who adds which noise.

    python benchmarks/private_learning.py --list
    python benchmarks/private_learning.py --budget 20m [--only digits/]
    python benchmarks/private_learning.py --document

A cell is a run of the real aggregator in virtual time with 1,000 edges in its process (`private_edges`), of which 100
are in each of 100 rounds. Its line goes to ``results/private_learning.jsonl`` as soon as it has ended, and a cell that
has a line is not run again. First come the runs without privacy that choose the learning rate, with a seed of their
own; the clip is the median norm of the updates with that rate. The choice is a line that all others use. The seeds
divide the data, draw the cohorts and the first weights, so that mechanisms are compared in pairs; the noise is as
random as ever. ``--document`` writes the tables of
``docs/differential-privacy.md``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import measured_lines
from learning_cells import parse_budget
from private_edges import Problem, problem, train

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.privacy import spent_by
from fl_edge.data.datasets import DataSetName
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m

LINES: Final = measured_lines.path_of("private_learning")
PAGE: Final = Path(__file__).parents[1] / "docs" / "differential-privacy.md"
Line = Mapping[str, Any]

SEEDS: Final = (0, 1, 2)
SEEDS_WITH_FEW: Final = range(9)
"""A run with few edges costs little, and its accuracy depends on its noise more."""
CHOOSING_SEED: Final = 9
RATES: Final = (0.01, 0.03, 0.1, 0.3)
EPSILONS: Final = (1.0, 2.0, 4.0, 8.0)
DATA: Final[dict[str, tuple[DataSetName, tuple[int, ...]]]] = {
    "digits": ("digits", ()),
    "fashion": ("fashion-mnist", ()),
    "digits-20": ("digits", ()),
}
"""By task, the data and the hidden units: all models are linear."""
FEW: Final[dict[str, dict[str, Any]]] = {"digits-20": {"clients": 20, "per_round": 20, "rounds": 10}}
"""What differs in the runs of a task with few edges, all of which are in each round: noise is independent then."""
MECHANISMS: Final[dict[str, dict[str, Any]]] = {
    "independent": {"dp": "central", "dp_bands": "1"},
    "correlated": {"dp": "central"},
    "models": {"dp": "central", "dp_against": "models"},
}
"""``models``: cohorts are secret, which protects against less."""
WITH_FEW: Final[dict[str, dict[str, Any]]] = {
    "independent": MECHANISMS["independent"],
    "distributed": {"dp": "distributed", "masked": True, "masked_min": 20},
    "least 12": {"dp": "distributed", "masked": True},
}
"""Of few edges. ``distributed``: they mask their updates and add the noise, and a sum must have all 20 of them.
``least 12``: or 12 of them, which is the default, so that each adds more."""
RUN: Final[dict[str, Any]] = {
    "clients": 1000, "per_round": 100, "rounds": 100, "over_select": 0, "holdout": 0.0, "evaluate_every": 10**6,
    "deadline": 1e6, "grace": 0.0, "durability": "memory",
}  # fmt: skip
TRAINING: Final[dict[str, Any]] = {"epochs": 1, "batch_size": 64, "momentum": 0.0}
GUESSED: Final = 0.2
"""Twice as often as by a guess among ten classes; what is right less often has learnt next to nothing."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A run. ``mechanism``, ``epsilon``: null without privacy. ``chosen``: the rate and the clip."""

    task: str
    mechanism: str | None
    epsilon: float | None
    seed: int
    chosen: Mapping[str, float] = field(hash=False)

    @property
    def name(self) -> str:
        """For people, and for ``--only``."""
        if self.seed == CHOOSING_SEED:
            return f"{self.task}/rate {self.chosen['lr']:g}"
        return (
            f"{self.task}/{self.mechanism or 'none'}/{'∞' if self.epsilon is None else f'{self.epsilon:g}'}"
        )

    @property
    def options(self) -> dict[str, Any]:
        """The settings of the run."""
        common = {**RUN, **FEW.get(self.task, {}), "seed": self.seed}
        if self.mechanism is None:
            return common
        private = {
            **mechanisms(self.task)[self.mechanism],
            "dp_epsilon": self.epsilon,
            "dp_clip": f"{self.chosen['clip']:g}",
        }
        return {**common, **private}

    @property
    def digest(self) -> str:
        """Of all that decides the result."""
        values = [self.task, DATA[self.task], self.options, TRAINING, self.chosen["lr"]]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def mechanisms(task: str) -> Mapping[str, Mapping[str, Any]]:
    """The settings of each mechanism that is compared in a task, by name."""
    return WITH_FEW if task in FEW else MECHANISMS


def seeds(task: str) -> Sequence[int]:
    """The seeds of a task's runs."""
    return SEEDS_WITH_FEW if task in FEW else SEEDS


def read_lines(path: Path = LINES) -> list[dict[str, Any]]:
    """The lines so far; none if there is no file."""
    return measured_lines.read_lines(path)


def write_line(line: Line, path: Path = LINES) -> None:
    """Appends a line."""
    measured_lines.write_line(line, path)


def choosing(task: str) -> list[Cell]:
    """The cells that choose the learning rate of a task."""
    return [Cell(task, None, None, CHOOSING_SEED, {"lr": rate}) for rate in RATES]


def cells(task: str, chosen: Mapping[str, float]) -> list[Cell]:
    """The cells of a task: all of a seed before those of the next one, but those of the last mechanism last.

    The last one has fewer seeds where the others have more.
    """
    *known, last = mechanisms(task)
    before = [
        cell
        for seed in seeds(task)
        for cell in (
            Cell(task, None, None, seed, chosen),
            *(Cell(task, name, epsilon, seed, chosen) for epsilon in EPSILONS for name in known),
        )
    ]
    return [
        *before,
        *(Cell(task, last, epsilon, seed, chosen) for seed in SEEDS for epsilon in EPSILONS),
    ]


def line_of(cell: Cell, lines: Iterable[Line]) -> Line | None:
    """The line of a cell with the settings that it has; null: it has not been run."""
    return next((line for line in lines if line.get("settings") == cell.digest), None)


def choice(task: str, lines: Sequence[Line]) -> dict[str, float] | None:
    """The rate with the best accuracy, and the median norm of its updates; null while cells are missing."""
    found = [(cell.chosen["lr"], line_of(cell, lines)) for cell in choosing(task)]
    known = [(line["accuracy"], rate, line["median_norm"]) for rate, line in found if line is not None]
    if len(known) < len(RATES):
        return None
    _, rate, norm = max(known)
    return {"lr": rate, "clip": float(f"{norm:.2g}")}


@cache
def problem_of(task: str) -> Problem:
    """The model and the data of a task."""
    return problem(*DATA[task])


def run(cell: Cell) -> dict[str, Any]:
    """Runs a cell and returns its line."""
    found, began = problem_of(cell.task), time.process_time()
    settings = Settings(task=f"{cell.task}-linear", **cell.options)
    training = m.TrainingSettings(**TRAINING, lr=cell.chosen["lr"], seed=cell.seed, logit_adjustment=0.0)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as scratch:
        state, weights, norms = train(settings, found, training, Path(scratch) / "run")
    plan, spent = state.settings.privacy, None
    if plan is not None:
        spent = spent_by(plan, state.releases)
    return {
        "cell": cell.name, "seed": cell.seed, "settings": cell.digest, "task": cell.task, "mechanism": cell.mechanism,
        "epsilon": cell.epsilon, **cell.chosen, "values": found.layers.manifest.values, "versions": state.version,
        "accuracy": round(found.accuracy(weights), 4), "median_norm": round(statistics.median(norms), 5),
        "noise": None if plan is None else round(plan.noise, 4),
        "bands": None if plan is None else plan.bands,
        "spent": None if spent is None else round(spent.epsilon, 4),
        "spent_on_wire": None if spent is None else spent.wire_epsilon,
        "cpu_seconds": round(time.process_time() - began, 1),
    }  # fmt: skip


def run_all(only: str, budget: float) -> None:
    """Runs what is left of the cells whose name contains ``only``, and begins none that would pass the budget."""
    lines, began, longest = read_lines(), time.monotonic(), 0.0
    for task in DATA:
        for is_choosing in (True, False):
            chosen = choice(task, lines)
            found = choosing(task) if is_choosing else [] if chosen is None else cells(task, chosen)
            for cell in found:
                if only not in cell.name or line_of(cell, lines) is not None:
                    continue
                if time.monotonic() - began + longest > budget:
                    raise SystemExit(f"{cell.name}: about {longest:.0f} s would pass the budget")
                at = time.monotonic()
                try:
                    line = run(cell)
                except (UserError, ValueError) as error:  # an option that this version lacks: no result
                    print(f"{cell.name}: left out: {error}", file=sys.stderr)
                    continue
                longest = max(longest, time.monotonic() - at)
                write_line(line)
                lines.append(line)
                print(f"{cell.name}, seed {cell.seed}: {line['accuracy']}", file=sys.stderr, flush=True)


def table(task: str, lines: Sequence[Line]) -> str:
    """The table of a task in Markdown; empty while it has no choice."""
    chosen = choice(task, lines)
    if chosen is None:
        return ""
    known = {(cell.mechanism, cell.epsilon, cell.seed): line_of(cell, lines) for cell in cells(task, chosen)}

    def of(mechanism: str | None, epsilon: float | None) -> list[Line]:
        found = [known.get((mechanism, epsilon, seed)) for seed in seeds(task)]
        return [line for line in found if line is not None]

    names = [name for name in mechanisms(task) if any(of(name, epsilon) for epsilon in EPSILONS)]
    pair = names[:2] if len(names) > 1 else []
    rows = [
        "| "
        + " | ".join(
            ["ε", *(f"z, {name}" for name in names), *names, *([" − ".join(pair[::-1])] if pair else [])]
        ),
        "| " + " | ".join(["---"] * (1 + 2 * len(names) + bool(pair))),
    ]
    for epsilon in EPSILONS:
        found = {name: of(name, epsilon) for name in names}
        texts = [f"{some[0]['noise']:.2f}" if some else "" for some in found.values()]
        texts += map(accuracy_text, found.values())
        if pair:
            both = zip(found[pair[0]], found[pair[1]], strict=False)
            gains = [100 * (other["accuracy"] - one["accuracy"]) for one, other in both]
            texts.append(f"{min(gains):+.1f} to {max(gains):+.1f}" if gains else "")
        rows.append(f"| {epsilon:g} | " + " | ".join(texts))
    plain = accuracy_text(of(None, None))
    rows.append("| ∞ | " + " | ".join([*([""] * len(names)), plain, *([""] * (len(names) - 1 + bool(pair)))]))
    return "\n".join(f"{row} |" for row in rows)


def filled(page: str, lines: Sequence[Line]) -> str:
    """The page with the tables of what has been measured, each behind its mark: ``<!-- private_learning: TASK -->``."""
    for task in DATA:
        mark, rows = f"<!-- private_learning: {task} -->\n", table(task, lines)
        page = re.sub(rf"{re.escape(mark)}(\|.*\n)*", f"{mark}{rows}\n" if rows else mark, page)
    return page


def accuracy_text(lines: Sequence[Line]) -> str:
    """Mean and standard deviation in percent; that next to nothing was learnt, if that is so."""
    if not lines:
        return ""
    values = [100 * line["accuracy"] for line in lines]
    text = f"{statistics.fmean(values):.1f}" + (
        f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    )
    return text if statistics.fmean(values) > 100 * GUESSED else f"{text}: next to nothing"


def main() -> None:
    """Lists, runs or shows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="cells whose name contains this")
    parser.add_argument("--budget", type=parse_budget, default=float("inf"), metavar="TIME",
                        help="begin no cell that would pass this time: 90s, 20m, 2h")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="show which cells are done")
    parser.add_argument("--document", action="store_true", help=f"write the tables of {PAGE.name}")
    arguments = parser.parse_args()
    lines = read_lines()
    if arguments.document:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), lines), encoding="utf-8")
    elif arguments.list:
        for task in DATA:
            for cell in (*choosing(task), *cells(task, choice(task, lines) or {"lr": 0.0, "clip": 1.0})):
                line = line_of(cell, lines)
                print(f"{cell.name:<30} seed {cell.seed}  {'' if line is None else line['accuracy']}")
    else:
        run_all(arguments.only, arguments.budget)


if __name__ == "__main__":
    main()
