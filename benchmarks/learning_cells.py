"""The cells of `learning.py`: what is run, what has been run, and what a run costs. Nothing is run here."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

Line = Mapping[str, Any]
"""A line of ``results/learning.jsonl``."""

SEEDS: Final = (0, 1, 2)
GRID_SEED: Final = 9
"""Of the learning rates alone, so that no cell is measured with the seed for which its rate was chosen."""
GRID: Final = (0.003, 0.01, 0.03)
GRID_PARTITIONS: Final = ("dirichlet:0.1", "iid")
REVISION: Final = 1
"""Raise it if the networks of `learning_task` change: then no earlier line counts."""
TITLES: Final = {
    "iid": "IID", "dirichlet:0.5": "Dirichlet 0.5", "dirichlet:0.1": "Dirichlet 0.1", "shards": "two classes an edge",
}  # fmt: skip
PARTITIONS: Final = tuple(TITLES)
ATTACKED: Final = ("iid", "dirichlet:0.5")
"""The partitions of block C."""
BASE: Final = "fedavg"
"""What all others are compared with."""
BOUND: Final = 0.25
"""Of SCAFFOLD's correction, the default; `BOUNDS` are compared with it."""
SKEW: Final[dict[str, dict[str, Any]]] = {
    "fedavg": {"strategy": "fedavg"},
    "fedprox": {"strategy": "fedprox"},
    "fednova": {"strategy": "fednova"},
    "scaffold": {"strategy": f"scaffold:bound={BOUND:g}"},
    "fedavg + logit adjustment": {"strategy": "fedavg", "logit_adjustment": 1.0},
}
BOUNDS: Final = {"dirichlet:0.1": (1.0, 0.5), "shards": (0.5,)}
STRENGTHS: Final = {"dirichlet:0.1": (0.5, 2.0), "shards": (0.5, 2.0)}
"""Of the logit adjustment, compared with 1."""
SERVER: Final[dict[str, tuple[float, ...]]] = {
    "fedavgm": (0.1, 3.0, 1.0, 0.33333, 0.03333),
    "fedadam": (0.01, 0.03, 0.00333),
    "fedyogi": (0.01, 0.03, 0.00333),
    "fedadagrad": (0.03, 0.3, 0.1, 0.01),
    "fedexp": (),
}
"""Server optimizers and their learning rates, the default first; FedExP has none, since it chooses its own."""
SERVED: Final = "average:5"
ATTACKS: Final = {
    "none": None, "sign-flip × 5": "sign-flip:factor=5,edges=4", "label-flip": "label-flip:edges=4",
    "scaled × 20": "scaled:factor=20,edges=4", "gaussian": "gaussian:edges=4", "ALIE": "alie:edges=4",
}  # fmt: skip
CLIP: Final = ("clip:norm=0.5",)
ROBUST: Final[dict[str, dict[str, Any]]] = {
    "fedavg": {"strategy": "fedavg"},
    "clip": {"strategy": "fedavg", "transform": CLIP},
    "median": {"strategy": "median"},
    "trimmed-mean": {"strategy": "trimmed-mean"},
    "multi-krum": {"strategy": "multi-krum:bad=4"},
    "bulyan": {"strategy": "bulyan:bad=4"},
    "geometric-median": {"strategy": "geometric-median"},
    "centered-clip": {"strategy": "centered-clip"},
    "clip + median": {"strategy": "median", "transform": CLIP},
}
DEVICES: Final = {"gateways": 1e5, "phones": 60.0}
"""Presets, and how long a run waits for enough edges. Before it begins, it waits so long for all; telephones are never
all there."""
DIVISIONS: Final = {"IID": "iid", "slow third": "natural"}
"""How the data are divided in block D; ``natural``: see `learning_task.SlowThird`."""
AT_WORK: Final = 10
VERSIONS: Final = 40
"""Of rounds of `AT_WORK` updates. All runs of block D have as many updates in their versions."""
PACES: Final[dict[str, dict[str, Any]]] = {
    "rounds": {"per_round": AT_WORK, "rounds": VERSIONS, "evaluate_every": 2},
    "over-selection": {"per_round": AT_WORK, "over_select": 4, "rounds": VERSIONS, "evaluate_every": 2},
    **{
        f"FedBuff, K {size}": {
            "mode": "async", "concurrency": AT_WORK, "buffer": size, "per_round": size,
            "rounds": VERSIONS * AT_WORK // size, "evaluate_every": 2 * AT_WORK // size,
        }
        for size in (5, 10)
    },
}  # fmt: skip
_SECONDS: Final = {
    "small-fashion": 3.0,
    "slow-third": 1.0,
    "mcmahan-mnist": 60.0,
    "cifar10": 60.0,
    "fashion-mnist": 10.0,
}
"""Of a round, for each task, before any of its cells has been run."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run. ``options``: arguments of ``fl_mqtt.simulate``. ``loop``: run a plain PyTorch loop beside it.

    ``devices``: the preset with which it runs in virtual time; null: in real time.
    """

    name: str
    seed: int
    task: str
    options: Mapping[str, Any] = field(hash=False)
    loop: bool = False
    devices: str | None = None

    @property
    def digest(self) -> str:
        """Of all that decides the result; a line counts for the cell only if it has the same."""
        values = {"revision": REVISION, "task": self.task, "loop": self.loop, "options": self.options}
        values |= {} if self.devices is None else {"devices": self.devices}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def all_cells(lr: float | None) -> list[Cell]:
    """All cells in the order in which they are run, with the chosen learning rate (null: none is chosen yet)."""
    grid = [
        _small(f"lr/{partition}/{rate:g}", GRID_SEED, rate, partition, rounds=20)
        for partition in GRID_PARTITIONS
        for rate in GRID
    ]
    return [
        *grid,
        *_skew(lr),
        *_tried(lr, "scaffold", "bound", BOUNDS, lambda bound: {"strategy": f"scaffold:bound={bound:g}"}),
        *_tried(
            lr, "fedavg + logit adjustment", "strength", STRENGTHS,
            lambda strength: {"strategy": BASE, "logit_adjustment": strength},
        ),
        *_server(lr),
        *_attacks(lr),
        *_served(lr),
        *_time(lr),
        *_anchors(),
    ]  # fmt: skip


def _small(name: str, seed: int, lr: float | None, partition: str, rounds: int = 50, **options: Any) -> Cell:
    """20 edges, 10 a round, 5 epochs. Of 7,500 images each edge keeps a fifth to evaluate on and trains on the rest."""
    return Cell(
        name, seed, "small-fashion",
        {"clients": 20, "per_round": 10, "rounds": rounds, "epochs": 5, "batch_size": 32, "lr": lr, "momentum": 0.9,
         "train_examples": 7500, "holdout": 0.2, "partition": partition, "seed": seed, **options},
    )  # fmt: skip


def _skew(lr: float | None, block: str = "A", suffix: str = "", **more: Any) -> list[Cell]:
    return [
        _small(f"{block}/{partition}/{name}{suffix}", seed, lr, partition, **options, **more)
        for seed in SEEDS
        for partition in PARTITIONS
        for name, options in SKEW.items()
    ]


def _tried(
    lr: float | None, name: str, field: str, tried: Mapping[str, Sequence[float]],
    options: Callable[[float], dict[str, Any]],
) -> list[Cell]:  # fmt: skip
    """A strategy with other values of one field. ``tried``: by partition. ``options``: of a run with a value."""
    return [
        _small(f"A/{partition}/{cell_with(name, field, value)}", seed, lr, partition, **options(value))
        for seed in SEEDS
        for partition, values in tried.items()
        for value in values
    ]


def cell_with(name: str, field: str, value: float) -> str:
    """The last part of a cell's name, of a strategy with another value than its default."""
    return f"{name}, {field} {value:g}"


def _server(lr: float | None) -> list[Cell]:
    return [
        _small(server_cell(name, rate), seed, lr, "dirichlet:0.1",
               strategy=name if rate is None else f"{name}:lr={rate:g}")
        for seed in SEEDS
        for name, rates in SERVER.items()
        for rate in rates or (None,)
    ]  # fmt: skip


def server_cell(name: str, rate: float | None) -> str:
    """The name of the cell of a server optimizer; its rate is null if it chooses that itself."""
    return f"B/{name}" if rate is None else f"B/{name}/lr {rate:g}"


def _attacks(lr: float | None) -> list[Cell]:
    """All 20 edges in each round, 4 of them bad. Bulyan needs 19."""
    return [
        _small(
            f"C/{partition}/{attack}/{name}", seed, lr, partition, per_round=20, quorum=19, rounds=20,
            **_attack(option), **options,
        )
        for seed in SEEDS
        for attack, option in ATTACKS.items()
        for partition in ATTACKED
        for name, options in ROBUST.items()
    ]  # fmt: skip


def _attack(option: str | None) -> dict[str, Any]:
    return {} if option is None else {"attack": option}


def _served(lr: float | None) -> list[Cell]:
    return _skew(lr, "S", f" + {SERVED}", serve=SERVED)


def _time(lr: float | None) -> list[Cell]:
    """60 edges, since of telephones a quarter is there at a time. Nobody waits for a deadline."""
    common = {"clients": 60, "epochs": 5, "batch_size": 32, "lr": lr, "momentum": 0.9, "train_examples": 7500,
              "holdout": 0.2, "grace": 0.0, "deadline": 3600.0}  # fmt: skip
    return [
        Cell(f"D/{devices}/{division}/{pace}", seed, "slow-third",
             {**common, **options, "wait": wait, "partition": partition, "seed": seed}, devices=devices)
        for seed in SEEDS
        for devices, wait in DEVICES.items()
        for division, partition in DIVISIONS.items()
        for pace, options in PACES.items()
    ]  # fmt: skip


def _anchors() -> list[Cell]:
    """What others have published, and the reference workload beside a plain loop."""
    mnist = {"clients": 100, "per_round": 10, "epochs": 5, "batch_size": 10, "lr": 0.05, "momentum": 0.0,
             "holdout": 0.0, "target": "accuracy=0.99", "seed": 0}  # fmt: skip
    cifar = {"clients": 10, "per_round": 10, "rounds": 30, "epochs": 5, "batch_size": 32, "lr": 0.01, "momentum": 0.9,
             "train_examples": 10_000, "holdout": 0.0}  # fmt: skip
    reference = {"clients": 20, "per_round": 10, "rounds": 10, "epochs": 10, "batch_size": 32, "lr": 0.05,
                 "momentum": 0.0, "train_examples": 6000, "holdout": 0.0}  # fmt: skip
    return [
        *(Cell("E/reference", seed, "fashion-mnist", {**reference, "seed": seed}, loop=True) for seed in SEEDS),
        Cell("E/mnist/iid", 0, "mcmahan-mnist", {**mnist, "rounds": 100, "partition": "iid"}),
        Cell("E/mnist/shards", 0, "mcmahan-mnist", {**mnist, "rounds": 500, "partition": "shards"}),
        *(
            Cell(f"E/cifar10/{partition}/{name}", seed, "cifar10",
                 {**cifar, "strategy": SKEW[name]["strategy"], "partition": partition, "seed": seed})
            for seed in SEEDS
            for partition in ("iid", "dirichlet:0.1")
            for name in ("fedavg", "scaffold")
        ),
    ]  # fmt: skip


def line_of(cell: Cell, lines: Iterable[Line]) -> Line | None:
    """The last line with the cell's settings, whatever it was called then; null: it has not been run."""
    found = [line for line in lines if line["settings"] == cell.digest]
    return found[-1] if found else None


def by_seed(name: str, lines: Iterable[Line]) -> dict[int, Line]:
    """The lines of a cell whose runs did not fail."""
    return {line["seed"]: line for line in lines if line["cell"] == name and "failed" not in line}


def chosen_lr(lines: Iterable[Line]) -> float | None:
    """The learning rate of all cells but the grid's, which is a line of its own; null before it is chosen."""
    choices = [line["lr"] for line in lines if line["cell"] == "lr"]
    return choices[-1] if choices else None


def choice(lines: Sequence[Line]) -> Line | None:
    """The line that states the rate with the best mean over the partitions; null while cells are missing."""
    grid = [cell for cell in all_cells(None) if cell.name.startswith("lr/")]
    found: dict[float, list[float]] = {}
    for cell in grid:
        line = line_of(cell, lines)
        if line is None:
            return None
        found.setdefault(cell.options["lr"], []).append(line.get("last") or 0.0)
    means = {rate: round(statistics.fmean(values), 4) for rate, values in found.items()}
    settings = hashlib.sha256("".join(cell.digest for cell in grid).encode()).hexdigest()[:16]
    return {"cell": "lr", "seed": GRID_SEED, "settings": settings, "lr": max(means, key=lambda rate: means[rate]),
            "of": {f"{rate:g}": mean for rate, mean in means.items()}}  # fmt: skip


def selected(cells: Iterable[Cell], pattern: str) -> list[Cell]:
    """The cells whose name, or name and seed (``A/iid/fedavg/0``), contain the pattern or match it as a glob."""
    return [
        cell
        for cell in cells
        if any(
            pattern in text or fnmatchcase(text, pattern) for text in (cell.name, f"{cell.name}/{cell.seed}")
        )
    ]


def estimated_seconds(cell: Cell, lines: Iterable[Line]) -> float:
    """Wall time of the cell: by the median round of its task's cells that were run, in proportion to its updates."""
    per_update = [
        line["seconds"] / (line["rounds"] * line["per_round"])
        for line in lines
        if line.get("task") == cell.task and line.get("rounds") and "seconds" in line
    ]
    each = statistics.median(per_update) if per_update else _SECONDS[cell.task] / 10
    return float(each * cell.options["rounds"] * cell.options["per_round"])


def parse_budget(text: str) -> float:
    """Seconds of ``20m``, ``2h`` or ``90s``. Raises ``ValueError``."""
    number, unit = text[:-1], {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    if unit is None or not number.replace(".", "", 1).isdigit():
        raise ValueError(f"{text!r}: expected a time such as 90s, 20m or 2h")
    return float(number) * unit


def curve_of(history: Iterable[Mapping[str, Any]]) -> list[tuple[int, float]]:
    """Version and accuracy on the test split of every committed round that was evaluated there."""
    return [
        (record["version"], round(record["metrics"]["accuracy"], 4))
        for record in history
        if record["outcome"] == "committed"
        and record.get("split") == "test"
        and "accuracy" in (record["metrics"] or {})
    ]


def last_five(curve: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """``last``: the mean accuracy of the last five versions, and ``spread``: their largest minus their smallest.

    A version that was not evaluated is left out; ``evaluated`` says how many there are.
    """
    if not curve:
        return {"last": None, "spread": None, "evaluated": 0}
    values = [value for version, value in curve if version > curve[-1][0] - 5]
    return {
        "last": round(statistics.fmean(values), 4),
        "spread": round(max(values) - min(values), 4),
        "evaluated": len(values),
    }
