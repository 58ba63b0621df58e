"""What each strategy learns: skewed data, server optimizers, attacks, and published figures. One JSON line a cell.

    python benchmarks/learning.py --list
    python benchmarks/learning.py --budget 20m --only 'A/dirichlet:0.1/*' [--data DIR] [--workers 1] [--runs DIR]
    python benchmarks/learning.py --document

A cell is a run of `fl_mqtt.simulate`: a real Mosquitto, and edges in processes of their own; block D is in virtual
time (`learning_time`). Its line goes to
``results/learning.jsonl`` as soon as it has ended. A cell that has a line with the same settings is not run again.
With ``--runs``, a cell that was cut is resumed, so one of many hours need not be run at once.
First come the cells that choose the learning rate, with a seed of their own; the choice is a line that all others use.
``--document`` writes the tables and curves of ``docs/learning.md`` from the lines. A cell of an option that the
installed version lacks is left out, with the reason.
"""

from __future__ import annotations

import argparse
import inspect
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import learning_cells as plan
import learning_document
import learning_time
import measured_lines
import reference_workload
from learning_task import TASKS

from fl_aggregator.aggregation.strategies.presets import PRESETS
from fl_aggregator.configuration.settings import Settings
from fl_edge.errors import DataCorruptError, DataMissingError
from fl_mqtt import Result, RunFailed, UserError, simulate

LINES: Final = measured_lines.path_of("learning")
say = reference_workload.say


def read_lines(path: Path = LINES) -> list[dict[str, Any]]:
    """The lines so far; none if there is no file."""
    return measured_lines.read_lines(path)


def write_line(line: plan.Line, path: Path = LINES) -> None:
    """Appends a line."""
    measured_lines.write_line(line, path)


def lacking(cell: plan.Cell) -> str | None:
    """The option or strategy that the installed version does not have yet; null if it can run the cell."""
    known = {*Settings.model_fields, *inspect.signature(simulate).parameters}
    missing = [f"no option {name}" for name in cell.options if name not in known]
    strategy = str(cell.options.get("strategy", "fedavg")).partition(":")[0]
    missing += [f"no strategy {strategy}"] if strategy not in PRESETS else []
    return "this fl-mqtt has " + ", ".join(missing) if missing else None


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def run(cell: plan.Cell, data: Path | None, workers: int, runs: Path | None = None) -> dict[str, Any]:
    """Runs a cell and returns its line. A run that fails is a result too: ``failed`` says why.

    ``runs``: keep a run in real time there, and resume it if it is there already. The line of such a run has no times,
    and its ``edges`` are those that have trained since.
    """
    line: dict[str, Any] = {
        "cell": cell.name, "seed": cell.seed, "settings": cell.digest, "commit": measured_lines.commit(),
        "task": cell.task, "options": dict(cell.options),
    }  # fmt: skip
    started, spent = time.perf_counter(), cpu_seconds()
    with tempfile.TemporaryDirectory(prefix="fl-learning-") as scratch:
        directory = Path(scratch) / "run" if runs is None or cell.devices else runs / cell.digest
        resumed = directory.exists()
        try:
            if resumed:
                result = simulate(TASKS[cell.task], resume=directory, log=say)
            elif cell.devices is None:
                result = simulate(
                    TASKS[cell.task], data=data, run_dir=directory, workers=workers, log=say, **cell.options
                )
            else:
                learning_time.simulate(cell, data, workers, directory)
        except RunFailed as error:
            reached = plan.curve_of(read_lines(directory / "history.jsonl"))
            return line | {"failed": str(error).splitlines()[0], "reached": reached}
        history = read_lines(directory / "history.jsonl")
        curve = plan.curve_of(history)
        if cell.devices is None:
            found = {**plan.last_five(curve), "edges": _edges(result)}
        else:
            found = learning_time.measured(cell, data, directory, history)
    times = {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(cpu_seconds() - spent, 1),
    }
    line |= {
        "rounds": sum(record["outcome"] == "committed" for record in history),
        "per_round": cell.options["per_round"],
        **({} if resumed else times),
        "bytes": {
            way: sum(record["bytes"][way] for record in history if record.get("bytes"))
            for way in ("up", "down")
        },
        "curve": curve,
        **found,
    }
    if cell.loop:
        arguments = argparse.Namespace(task=cell.task, data=data, **cell.options)
        cohorts = [record["participants"] for record in history if record["outcome"] == "committed"]
        line["loop_accuracy"] = reference_workload.plain_loop(arguments, cohorts)[0]
    return line


def _edges(result: Result) -> dict[str, float]:
    """By client, the accuracy of the last version that it began from on its holdout."""
    return {
        name: round(edge.before["accuracy"], 4)
        for name, edge in sorted(result.edges.items())
        if "accuracy" in edge.before
    }


def missing_data(task: str, data: Path | None) -> str | None:
    """What is missing of a task's data and what to do, in one line; null if all is there."""
    try:
        TASKS[task]().load_test(data)
    except (DataMissingError, DataCorruptError) as error:
        return str(error)
    return None


def show(cells: Sequence[plan.Cell], lines: Sequence[plan.Line]) -> None:
    """Prints each cell: done, lacking an option, or the estimated minutes; and their sum."""
    total = 0.0
    for cell in cells:
        line, lacks = plan.line_of(cell, lines), lacking(cell)
        minutes = plan.estimated_seconds(cell, lines) / 60
        if line is not None:
            state = "failed" if "failed" in line else f"done {line['last']}"
        else:
            state = lacks or f"{minutes:.0f} min"
            total += 0.0 if lacks else minutes
        print(f"{cell.name:<55} seed {cell.seed}  {state}")
    print(f"{len(cells)} cells; what can be run takes about {total / 60:.1f} h")


def choose_lr(lines: list[dict[str, Any]]) -> None:
    """Adds the line that states the learning rate, as soon as the whole grid has been run."""
    found = plan.choice(lines)
    if found is not None and not any(
        line["cell"] == "lr" and line["settings"] == found["settings"] for line in lines
    ):
        write_line(found)
        lines.append(dict(found))
        say(f"learning rate: {found['lr']:g}, of {found['of']}")


def run_all(arguments: argparse.Namespace) -> None:
    """Runs what is left of the selected cells; after the last one of the grid, those of the other blocks."""
    began, skipped = time.monotonic(), set[str]()
    lines = read_lines()
    for cell in (c for block in ("grid", "rest") for c in _selected(block, arguments.only, lines)):
        if plan.line_of(cell, lines) is not None:
            continue
        if cell.options["lr"] is None:
            raise SystemExit("no learning rate is chosen yet: first run --only lr/")
        reason = lacking(cell) or missing_data(cell.task, arguments.data)
        estimate = plan.estimated_seconds(cell, lines)
        if reason is None and time.monotonic() - began + estimate > arguments.budget:
            reason = f"about {estimate / 60:.0f} min would pass the budget"
        if reason is not None:
            if reason not in skipped:
                say(f"{cell.name}: left out, as others of this kind: {reason}")
            skipped.add(reason)
            continue
        say(f"{cell.name}, seed {cell.seed}: about {estimate / 60:.0f} min")
        try:
            line = run(cell, arguments.data, arguments.workers, arguments.runs)
        except UserError as error:  # an option that this version reads otherwise: no result
            say(f"{cell.name}: left out: {error}")
            continue
        write_line(line)
        lines.append(line)
        say(f"{cell.name}, seed {cell.seed}: {line.get('failed') or line['last']}")
        choose_lr(lines)


def _selected(block: str, pattern: str, lines: Sequence[plan.Line]) -> list[plan.Cell]:
    """Made only when it is this block's turn, since the grid decides the learning rate of the rest."""
    cells = plan.selected(plan.all_cells(plan.chosen_lr(lines)), pattern)
    return [cell for cell in cells if cell.name.startswith("lr/") == (block == "grid")]


def main() -> None:
    """Lists, runs or draws."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="cells whose name contains or matches this"
    )
    parser.add_argument("--budget", type=plan.parse_budget, default=float("inf"), metavar="TIME",
                        help="begin no cell that would pass this time: 90s, 20m, 2h")  # fmt: skip
    parser.add_argument("--data", type=Path, help="directory of the data sets (default: where tasks look)")
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="keep runs there (of all blocks but D), and resume those that were cut",
    )
    parser.add_argument("--list", action="store_true", help="show the cells, and which are done")
    parser.add_argument("--document", action="store_true", help="write docs/learning.md from the lines")
    arguments = parser.parse_args()
    lines = read_lines()
    cells = plan.selected(plan.all_cells(plan.chosen_lr(lines)), arguments.only)
    if not cells:
        parser.error(
            f"--only {arguments.only!r}: no cell has such a name, expected one of --list, or a part of it"
        )
    if arguments.list:
        show(cells, lines)
    elif arguments.document:
        learning_document.write(lines)
    else:
        run_all(arguments)


if __name__ == "__main__":
    main()
