"""Injects faults in every phase of a run: does the run end, is anything lost, and is the model the same?

    python benchmarks/chaos.py                      # all cells, some minutes
    python benchmarks/chaos.py --quick              # one cell for each fault
    python benchmarks/chaos.py --fault broker-kill --phase committing --phase uploading

Each cell is a run: a real Mosquitto, `fl-aggregator start` with four edges in a round, three rounds, quorum 1
and no grace, two `fl-edge` processes, and a TCP proxy before each of the three programs. The fault is
injected in the second round, as soon as the journal, the wire or the victim's log shows the phase
(`selecting`: before the first round). Phases that last milliseconds may be missed: such a cell is repeated up
to three times, and ``hit`` says whether the fault hit the phase in the end. ``same_model`` compares with an
undisturbed run if the same edges contributed to every version, since docs/reliability.md promises equal
models in that case.

Prints a table on standard error while it runs, and one JSON line with ``cells`` on standard output.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for tests.support, which starts the programs

from chaos_cells import cell  # noqa: E402
from chaos_cells.faults import FAULTS, Fault  # noqa: E402
from chaos_cells.phases import PHASES, Phase  # noqa: E402

COLUMNS = ("fault", "phase", "hit", "finished", "updates lost", "rounds lost", "noticed after", "same model")


def say(text: str) -> None:
    """Prints a line on standard error at once."""
    print(text, file=sys.stderr, flush=True)


def row(one: cell.Cell) -> str:
    """A cell as a line of a Markdown table."""
    noticed = "–" if one.seconds_to_notice is None else f"{one.seconds_to_notice:.2f} s"
    same = {True: "yes", False: "NO", None: "–"}[one.same_model]
    finished = "yes" if one.finished else ("HUNG" if one.hung else "NO")
    shown = (
        one.fault,
        one.phase,
        "yes" if one.hit else "no",
        finished,
        one.updates_lost,
        one.rounds_lost,
        noticed,
        same,
    )
    line = "| " + " | ".join(str(value) for value in shown) + " |"
    return line + "".join(f" {what};" for what in (f"{one.seconds} s", *one.trouble))


def chosen(arguments: argparse.Namespace) -> list[tuple[Fault, Phase]]:
    """The pairs of fault and phase that the arguments select."""
    by_name = {fault.name: fault for fault in FAULTS}
    faults = [by_name[name] for name in arguments.fault or by_name]
    found = []
    for fault in faults:
        wanted = arguments.phase or ([fault.quick] if arguments.quick else [phase.name for phase in PHASES])
        found += [(fault, phase) for phase in PHASES if phase.name in wanted]
    return found


def _end(*_: object) -> None:
    """Exits on SIGTERM, which ends all started programs. A second SIGTERM must not interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def main() -> None:
    """Runs the chosen cells, each in its own directory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--fault", action="append", choices=[fault.name for fault in FAULTS], help="all if not given"
    )
    parser.add_argument(
        "--phase", action="append", choices=[phase.name for phase in PHASES], help="all if not given"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one cell a fault, in a phase that needs no torch"
    )
    parser.add_argument(
        "--keep", type=Path, default=None, help="a new directory for what the runs leave behind"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    began = time.monotonic()
    cells = []
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) if arguments.keep is None else arguments.keep
        references: dict[str, cell.Undisturbed] = {}
        say("| " + " | ".join(COLUMNS) + " |")
        say("|" + " --- |" * len(COLUMNS))
        for fault, phase in chosen(arguments):
            name = phase.task.name
            if name not in references:
                references[name] = cell.undisturbed(directory / f"undisturbed-{name}", phase.task)
            one = cell.play(directory / f"{fault.name}-{phase.name}", fault, phase, references[name])
            say(row(one))
            cells.append(one)
    print(
        json.dumps(
            {
                "benchmark": "chaos",
                "seconds": round(time.monotonic() - began, 1),
                "undisturbed": {name: one.model_sha256 for name, one in references.items()},
                "cells": [one.as_json() for one in cells],
            }
        )
    )


if __name__ == "__main__":
    main()
