"""The pictures of ``docs/learning.md`` from the lines of `learning.py`: mean curves, drawn by `learning_curves`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import learning_cells as plan
import learning_curves
from learning_cells import ATTACKED, BASE, TITLES, Line, by_seed
from learning_time import shares_of_time

DRAWN: Final = ("sign-flip × 5", "label-flip", "scaled × 20")
"""The attacks that change the mean enough to be seen in curves."""
Curve = list[tuple[float, float]]


def curves(lines: Sequence[Line]) -> dict[str, str]:
    """The SVG files by name: the mean curve over the seeds of each strategy."""
    skewed = {TITLES[p]: {name: f"A/{p}/{name}" for name in plan.SKEW} for p in plan.PARTITIONS}
    means = {
        TITLES[p]: {
            BASE: f"A/{p}/{BASE}",
            **{f"{name} + {plan.SERVED}": f"S/{p}/{name} + {plan.SERVED}" for name in plan.SKEW},
        }
        for p in plan.PARTITIONS
    }
    defaults = {name: plan.server_cell(name, next(iter(rates), None)) for name, rates in plan.SERVER.items()}
    attacked = {
        f"{attack}, {TITLES[p]}": {name: f"C/{p}/{attack}/{name}" for name in plan.ROBUST}
        for attack in DRAWN
        for p in ATTACKED
    }
    return {
        "skew.svg": learning_curves.svg(
            panels(skewed, lines), 50, "Accuracy over the version, by division of the data and strategy"
        ),
        "served.svg": learning_curves.svg(
            panels(means, lines), 50, "Accuracy over the version, of FedAvg and of the mean of the last five versions"
        ),
        "server.svg": learning_curves.svg(
            panels({TITLES["dirichlet:0.1"]: defaults}, lines), 50,
            "Accuracy over the version with server optimizers and their default rates, Dirichlet 0.1",
        ),
        "attacks.svg": learning_curves.svg(
            panels(attacked, lines), 20, "Accuracy over the version under attacks, by attack, division and strategy"
        ),
        "time.svg": learning_curves.svg(
            time_curves(lines), 100, "Accuracy over virtual time, in percent of the time of the run in rounds"
        ),
    }  # fmt: skip


def panels(cells: Mapping[str, Mapping[str, str]], lines: Sequence[Line]) -> dict[str, dict[str, Curve]]:
    """The mean curves by panel and name in it, from the names of their cells; without those that have not been run."""
    found = {
        title: {name: mean_curve(cell, lines) for name, cell in names.items()}
        for title, names in cells.items()
    }
    kept = {title: {name: curve for name, curve in panel.items() if curve} for title, panel in found.items()}
    return {title: panel for title, panel in kept.items() if panel}


def mean_curve(name: str, lines: Iterable[Line]) -> Curve:
    """The mean over the seeds, at the versions that were evaluated with all of them; of a failed run, those it had."""
    curves = [line.get("curve") or line.get("reached") or [] for line in lines if line["cell"] == name]
    found = [dict(map(tuple, curve)) for curve in curves if curve]
    common = sorted(set.intersection(*(set(curve) for curve in found))) if found else []
    return [(version, statistics.fmean(curve[version] for curve in found)) for version in common]


def time_curves(lines: Sequence[Line]) -> dict[str, dict[str, Curve]]:
    """Accuracy over the virtual time in percent of the rounds', as the mean over the seeds, by panel and pace."""
    drawn: dict[str, dict[str, Curve]] = {}
    for devices in plan.DEVICES:
        for division in plan.DIVISIONS:
            base = by_seed(f"D/{devices}/{division}/rounds", lines)
            for pace in plan.PACES:
                found = by_seed(f"D/{devices}/{division}/{pace}", lines)
                curves = [shares_of_time(line, base[seed]) for seed, line in found.items() if seed in base]
                common = sorted(set.intersection(*map(set, curves))) if curves else []
                points = [
                    tuple(map(statistics.fmean, zip(*(one[v] for one in curves), strict=True)))
                    for v in common
                ]
                if kept := [(x, y) for x, y in points if x <= 100]:
                    drawn.setdefault(f"{devices}, {division}", {})[pace] = kept
    return drawn
