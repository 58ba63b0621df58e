"""The tables of ``docs/learning.md`` from the lines of `learning.py`, between the document's marks.

What is between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is made here, all else is written by hand.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import learning_cells as plan
import learning_pictures
from learning_cells import ATTACKED, BASE, TITLES, Line, by_seed, cell_with
from learning_time import seconds_to

DOCS: Final = Path(__file__).parents[1] / "docs"
NOT_RUN: Final = "not run yet"
NOTHING: Final = f"{NOT_RUN.capitalize()}."
EMPTY: Final = (NOT_RUN, "–")
SERVED: Final = (
    "The same runs with `--serve average:5`, which evaluates and serves the mean of the last five versions:"
)
SERVER: Final = """\
## B: server optimizers

At Dirichlet 0.1, compared with FedAvg, by the learning rate of the aggregator. `fedexp` chooses its own.

{table}

![Accuracy over the version with server optimizers and their default rates](learning/server.svg)"""


def values(name: str, lines: Iterable[Line], key: str = "last") -> dict[int, float]:
    """The values of a cell by seed; a failed run has none."""
    newest = {line["seed"]: line for line in lines if line["cell"] == name}
    return {seed: line[key] for seed, line in sorted(newest.items()) if line.get(key) is not None}


def current(lines: Sequence[Line]) -> list[Line]:
    """The lines that still count: measured with the settings of a cell, the last of each, with its name of today."""
    cells = plan.all_cells(plan.chosen_lr(lines))
    found = [{**line, "cell": cell.name} for cell in cells if (line := plan.line_of(cell, lines)) is not None]
    return [*found, *(line for line in lines if line["cell"] == "lr")]


def entry(name: str, lines: Sequence[Line], base: str | None = None) -> str:
    """A cell of a table, in percent: mean over the seeds, paired difference to ``base``, spread, number of seeds.

    Runs that failed have no part in the mean; how many they are stands behind it.
    """
    found = values(name, lines)
    if not found:
        return failure(name, lines)
    parts = [f"**{100 * statistics.fmean(found.values()):.1f}**"]
    other = {} if base is None or base == name else values(base, lines)
    if paired := found.keys() & other.keys():
        parts.append(f"({100 * statistics.fmean(found[seed] - other[seed] for seed in paired):+.1f})")
    parts.append(f"±{100 * statistics.fmean(values(name, lines, 'spread').values()):.1f}")
    failed = sum(line["cell"] == name and "failed" in line for line in lines)
    return " ".join([*parts, f"[{len(found)}]", *([f"{failed} failed"] if failed else [])])


def failure(name: str, lines: Sequence[Line]) -> str:
    """What a cell without any value shows: not run, or failed; after ``/`` what its last version reached."""
    found = [line for line in lines if line["cell"] == name]
    if not found:
        return NOT_RUN
    reached = [line["reached"][-1][1] for line in found if line.get("reached")]
    return f"failed / {100 * statistics.fmean(reached):.1f}" if reached else "failed"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def compact(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table without the rows and columns in which nothing has been run; `NOTHING` if nothing has."""
    kept = [row for row in rows if any(entry not in EMPTY for entry in row[1:])]
    columns = [0, *(i for i in range(1, len(head)) if any(row[i] not in EMPTY for row in kept))]
    if not kept:
        return NOTHING
    return table([head[i] for i in columns], ([row[i] for i in columns] for row in kept))


def grid(lines: Sequence[Line]) -> str:
    """The grid of learning rates, and what was chosen."""
    rows = [
        [f"{rate:g}", *(entry(f"lr/{partition}/{rate:g}", lines) for partition in plan.GRID_PARTITIONS)]
        for rate in plan.GRID
    ]
    lr = plan.chosen_lr(lines)
    chosen = "No rate is chosen yet." if lr is None else f"All cells of blocks A, B and C use {lr:g}."
    if lr == max(plan.GRID):
        chosen += " It is the largest of the grid, so a still larger one may be better, or diverge."
    head = ["learning rate", *(f"{partition}, 20 rounds, seed 9" for partition in plan.GRID_PARTITIONS)]
    return f"{table(head, rows)}\n\n{chosen}"


def skew(lines: Sequence[Line], block: str = "A", suffix: str = "") -> str:
    """Strategies by partition."""
    rows = [
        [name, *(entry(f"{block}/{p}/{name}{suffix}", lines, f"A/{p}/{BASE}") for p in plan.PARTITIONS)]
        for name in plan.SKEW
    ]
    return compact(["", *(TITLES[partition] for partition in plan.PARTITIONS)], rows)


def bounds(lines: Sequence[Line]) -> str:
    """SCAFFOLD by bound and seed, in percent, beside FedAvg."""
    return _by_value("scaffold", "bound", plan.BOUND, plan.BOUNDS, lines)


def strengths(lines: Sequence[Line]) -> str:
    """The logit adjustment by strength and seed, in percent, beside FedAvg."""
    return _by_value("fedavg + logit adjustment", "strength", 1, plan.STRENGTHS, lines)


def _by_value(
    cell: str, field: str, default: float, tried: Mapping[str, Sequence[float]], lines: Sequence[Line]
) -> str:
    others = {value for values in tried.values() for value in values}
    names = {
        value: cell if value == default else cell_with(cell, field, value) for value in {default, *others}
    }
    titles = {"FedAvg": BASE} | {f"{field} {value:g}": names[value] for value in sorted(names)}
    columns = [(partition, seed) for partition in tried for seed in plan.SEEDS]
    rows = [
        [title, *(_percent(f"A/{p}/{name}", seed, lines) for p, seed in columns)]
        for title, name in titles.items()
    ]
    return compact(["", *(f"{TITLES[partition]}, seed {seed}" for partition, seed in columns)], rows)


def _percent(name: str, seed: int, lines: Sequence[Line]) -> str:
    found = values(name, lines)
    return f"{100 * found[seed]:.1f}" if seed in found else "–"


def served(lines: Sequence[Line]) -> str:
    """The same with the mean of the last versions served, with its introduction; empty if nothing has been run."""
    found = skew(lines, "S", f" + {plan.SERVED}")
    return "" if found == NOTHING else f"{SERVED}\n\n{found}"


def server(lines: Sequence[Line]) -> str:
    """The section on server optimizers by learning rate; empty if nothing has been run."""
    rows = []
    for name, rates in plan.SERVER.items():
        for rate in (*sorted(rates, reverse=True),) or (None,):
            title = "its own" if rate is None else f"{rate:g}" + (" (default)" if rate == rates[0] else "")
            rows.append([name, title, entry(plan.server_cell(name, rate), lines, f"A/dirichlet:0.1/{BASE}")])
    found = [row for row in rows if row[-1] != NOT_RUN]
    return SERVER.format(table=table(["", "learning rate", "accuracy"], found)) if found else ""


def attacks(lines: Sequence[Line]) -> str:
    """Strategies by attack, a table for each partition."""
    tables = []
    for partition in ATTACKED:
        cells, base = f"C/{partition}", f"C/{partition}/none/{BASE}"
        rows = [
            [attack, *(entry(f"{cells}/{attack}/{name}", lines, base) for name in plan.ROBUST)]
            for attack in plan.ATTACKS
        ]
        tables.append(f"{TITLES[partition]}:\n\n{compact(['', *plan.ROBUST], rows)}")
    return "\n\n".join(tables)


def time(lines: Sequence[Line]) -> str:
    """Block D: what each way of waiting reaches, and how fast. Shares of time are of the run in rounds."""
    rows = [
        [devices, division, pace, *_time_row(f"D/{devices}/{division}", pace, lines)]
        for devices in plan.DEVICES
        for division in plan.DIVISIONS
        for pace in plan.PACES
        if values(f"D/{devices}/{division}/{pace}", lines)
    ]
    head = [
        "devices",
        "data",
        "",
        "accuracy",
        "worst third",
        "slow third",
        "virtual s",
        "to the rounds' accuracy",
    ]
    return table(head, rows) if rows else NOTHING


def _time_row(cells: str, pace: str, lines: Sequence[Line]) -> list[str]:
    name, base = f"{cells}/{pace}", by_seed(f"{cells}/rounds", lines)
    thirds = [
        f"{100 * statistics.fmean(values(name, lines, key).values()):.1f}"
        for key in ("worst_third", "slow_third")
    ]
    shares = []
    for seed, line in by_seed(name, lines).items():
        if seed in base:
            seconds = seconds_to(line, base[seed]["last"])
            shares.append(None if seconds is None else seconds / base[seed]["virtual_seconds"])
    reached = [share for share in shares if share is not None]
    if not shares:
        when = NOT_RUN
    elif len(reached) < len(shares):
        when = f"reached by {len(reached)} of {len(shares)}"
    else:
        when = f"{statistics.median(reached):.2f} of their time"
    seconds = statistics.fmean(values(name, lines, "virtual_seconds").values())
    return [entry(name, lines, f"{cells}/rounds"), *thirds, f"{seconds:,.0f}", when]


def anchors(lines: Sequence[Line]) -> str:
    """Published figures beside ours, and the reference workload beside a plain loop."""
    rows = [
        [
            f"MNIST, McMahan's CNN, {title}",
            f"rounds to 99 %: {published}",
            reached(f"E/mnist/{partition}", lines),
        ]
        for partition, title, published in (("iid", "IID", 20), ("shards", "two shards an edge", 229))
    ]
    for partition, title in (("iid", "IID"), ("dirichlet:0.1", "Dirichlet 0.1")):
        for name in ("fedavg", "scaffold"):
            known = {"fedavg": "80.5", "scaffold": "82.6"}[name] if partition != "iid" else "–"
            rows.append([f"CIFAR-10, {title}, {name}", known, entry(f"E/cifar10/{partition}/{name}", lines)])
    ours, loop = values("E/reference", lines), values("E/reference", lines, "loop_accuracy")
    finals = {
        line["seed"]: line["curve"][-1][1]
        for line in lines
        if line["cell"] == "E/reference" and line.get("curve")
    }
    beside = f"plain loop: {100 * statistics.fmean(loop.values()):.1f}" if loop else f"plain loop: {NOT_RUN}"
    mine = f"**{100 * statistics.fmean(finals.values()):.1f}** [{len(finals)}]" if ours else NOT_RUN
    return table(["", "theirs", "ours"], [*rows, ["reference workload, last round", beside, mine]])


def reached(name: str, lines: Sequence[Line]) -> str:
    """After how many rounds a run reached its target; its best accuracy if it did not."""
    line = next((line for line in lines if line["cell"] == name and line.get("curve")), None)
    if line is None:
        return NOT_RUN
    version = next((version for version, value in line["curve"] if value >= 0.99), None)
    best = max(value for _, value in line["curve"])
    return f"**{version}**" if version else f"not in {line['rounds']}; best {100 * best:.1f}"


def seen(lines: Sequence[Line]) -> str:
    """By partition, each cell beside FedAvg with the same seeds, best first. Nothing that was not run."""
    done = sum(not line["cell"].startswith("lr") for line in lines)
    total = sum(not cell.name.startswith("lr/") for cell in plan.all_cells(None))
    found = [f"{done} of {total} cells have been run."]
    for partition in plan.PARTITIONS:
        blocks = (f"A/{partition}/", f"S/{partition}/", *(["B/"] if partition == "dirichlet:0.1" else []))
        base, late_base = values(blocks[0] + BASE, lines), late_means(blocks[0] + BASE, lines)
        gains: list[tuple[float, float, str, int]] = []
        for name in {line["cell"] for line in lines if line["cell"].startswith(blocks)} - {blocks[0] + BASE}:
            mine, late = values(name, lines), late_means(name, lines)
            if seeds := mine.keys() & base.keys():
                title = name.removeprefix(next(block for block in blocks if name.startswith(block)))
                gain = statistics.fmean(mine[seed] - base[seed] for seed in seeds)
                late_gain = statistics.fmean(late[seed] - late_base[seed] for seed in seeds)
                gains.append((gain, late_gain, title.replace("/", ", "), len(seeds)))
        rows = [
            [title, f"{100 * gain:+.1f}", f"{100 * late_gain:+.1f}", str(seeds)]
            for gain, late_gain, title, seeds in sorted(gains, key=lambda row: (-row[0], row[2]))
        ]
        if rows:
            found.append(table([TITLES[partition], "last five", "last twenty", "seeds"], rows))
    return "\n\n".join(found)


def late_means(name: str, lines: Iterable[Line]) -> dict[int, float]:
    """The mean of the last twenty versions by seed, which changes less from version to version than that of five."""
    return {
        line["seed"]: statistics.fmean(
            value for version, value in line["curve"] if version > line["curve"][-1][0] - 20
        )
        for line in lines
        if line["cell"] == name and line.get("curve")
    }


PARTS: Final = {
    "grid": grid, "seen": seen, "skew": skew, "bounds": bounds, "strengths": strengths, "served": served,
    "server": server, "attacks": attacks, "time": time, "anchors": anchors,
}  # fmt: skip


def filled(text: str, lines: Sequence[Line]) -> str:
    """Returns the document with what is between its marks made anew. Raises ``KeyError`` for an unknown mark."""
    counted = current(lines)

    def part(found: re.Match[str]) -> str:
        name = found["name"]
        return f"<!-- begin {name} -->\n{PARTS[name](counted)}\n<!-- end {name} -->"

    return re.sub(r"<!-- begin (?P<name>\w+) -->\n.*?<!-- end (?P=name) -->", part, text, flags=re.DOTALL)


def write(lines: Sequence[Line]) -> None:
    """Writes the document and its pictures."""
    document = DOCS / "learning.md"
    document.write_text(filled(document.read_text(encoding="utf-8"), lines), encoding="utf-8")
    for name, picture in learning_pictures.curves(current(lines)).items():
        (DOCS / "learning" / name).write_text(picture, encoding="utf-8")
