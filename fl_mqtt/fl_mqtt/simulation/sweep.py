"""Runs a sweep: ``simulate`` as a child process for each run, each in a subdirectory, one or several at a time."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import click
from rich.console import Console
from rich.table import Table

from fl_aggregator.storage.run_directory import LOCK_FILE, RUN_FILE, read_run
from fl_aggregator.storage.sweep_record import SWEEP_FILE, SweepRecord, SweptRun, read_sweep_record
from fl_aggregator.tools.report.sweep import Sweep, read_sweep, results
from fl_shared.cli import signals
from fl_shared.errors import INTERRUPTED, RunFailed, UserError
from fl_shared.system.child_process import ChildProcess
from fl_shared.system.file_lock import FileLock
from fl_shared.system.invocation import aggregator_command
from fl_shared.system.text import names_text, one_line, shortened

_POLL: Final = 0.2
LEFTOVER_TIMEOUT: Final = 30.0
"""Seconds; a run ends by itself a few seconds after its sweep was killed."""
MAX_REASON: Final = 300

Step = Literal["finished", "resume", "begin"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a sweep has ended. ``failed``: why, by the name of the run. ``interrupted``: whether it was stopped."""

    failed: dict[str, str]
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """The program's exit code."""
        if self.interrupted:
            return INTERRUPTED
        return RunFailed.exit_code if self.failed else 0


def next_step(directory: Path) -> Step:
    """What is to be done about a run: nothing, if it is finished; resume it, if it has begun; else begin it anew."""
    if not (directory / RUN_FILE).exists():
        return "begin"
    return "finished" if read_run(directory).ended is not None else "resume"


def begin(directory: Path, record: SweepRecord) -> None:
    """Creates the directory of a sweep. Raises ``UserError`` if it is not empty, or cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            known = (directory / SWEEP_FILE).exists()
            hint = f"; continue it with: {resume_command(directory)}" if known else ""
            raise UserError(f"--run-dir {directory}: is not empty, expected a new directory{hint}")
        record.write(directory)
    except OSError as error:
        raise UserError(f"--run-dir {directory}: {error.strerror}") from None


def resume_command(directory: Path) -> str:
    """The command that continues a sweep, as a user can paste it."""
    return aggregator_command("simulate", "--resume", directory)


def command(run: SweptRun, directory: Path, step: Step, broker: Sequence[str]) -> list[str]:
    """The command that begins or resumes a run in ``directory``; ``broker``: what a resume needs of the broker."""
    where = (
        ["--resume", str(directory), *broker]
        if step == "resume"
        else ["--run-dir", str(directory), *run.arguments]
    )
    return [sys.executable, "-m", "fl_mqtt", "simulate", "--quiet", *where]


class SweepRunner:
    """Runs what is left of the sweep in ``directory``, ``parallel`` runs at a time. ``tell`` gets its progress.

    ``recorded``: the variables of options that a run which begins does not get: its arguments say what they gave.
    """

    def __init__(
        self,
        directory: Path,
        parallel: int,
        broker: Sequence[str] = (),
        tell: Callable[[str], None] = click.echo,
        recorded: Container[str] = (),
    ) -> None:
        self._directory = directory
        self._parallel = parallel
        self._broker = broker
        self._tell = tell
        self._recorded = recorded
        self._stopping = threading.Event()
        self._failed: dict[str, str] = {}
        self._ended = 0

    def stop(self) -> None:
        """Asks the sweep to stop: no run begins any more, and those that are running stop cleanly."""
        self._stopping.set()

    def run(self) -> Outcome:
        """Runs until all runs have ended, or a signal stops them. Raises ``UserError`` if another process runs it."""
        runs = read_sweep_record(self._directory).runs
        try:
            lock = FileLock(self._directory / LOCK_FILE)
        except BlockingIOError:
            raise UserError(f"--resume {self._directory}: another process runs this sweep") from None
        except OSError as error:
            raise UserError(f"--resume {self._directory}: {error.strerror}") from None
        signals.end_on_signals(lambda _number: self.stop())
        running: dict[str, ChildProcess] = {}
        try:
            self._run(deque(self._left(runs)), running, len(runs))
        finally:
            with ThreadPoolExecutor() as pool:
                list(pool.map(ChildProcess.stop, running.values()))
            lock.release()
        return Outcome(self._failed, self._stopping.is_set())

    def _left(self, runs: Sequence[SweptRun]) -> list[tuple[SweptRun, Step]]:
        steps = [(run, next_step(self._directory / run.name)) for run in runs]
        left: list[tuple[SweptRun, Step]] = [(run, step) for run, step in steps if step != "finished"]
        self._ended = len(runs) - len(left)
        if self._ended:
            self._tell(f"{self._ended} of {len(runs)} runs are finished already")
        return left

    def _run(self, left: deque[tuple[SweptRun, Step]], running: dict[str, ChildProcess], count: int) -> None:
        while left or running:
            while left and len(running) < self._parallel:
                run, step = left.popleft()
                running[run.name] = self._start(run, step)
            if self._stopping.wait(_POLL):
                self._tell(f"stopping: {names_text(sorted(running))}")
                return
            for name, child in list(running.items()):
                if (code := child.poll()) is not None:
                    del running[name]
                    self._ended += 1
                    self._tell(f"{self._ended} of {count}: {name}: {self._end(name, child, code)}")

    def _start(self, run: SweptRun, step: Step) -> ChildProcess:
        directory, environment = self._directory / run.name, dict(os.environ)
        self._await_leftover(directory)
        if step == "begin":
            environment = {name: text for name, text in environment.items() if name not in self._recorded}
            shutil.rmtree(
                directory, ignore_errors=True
            )  # what a run has left that was cut off before it began
        log = self._directory / f"{run.name}.log"
        return ChildProcess(command(run, directory, step, self._broker), log, environment)

    def _await_leftover(self, directory: Path) -> None:
        """Waits until the run that a killed sweep has left behind has ended, too, `LEFTOVER_TIMEOUT` at most."""
        deadline = time.monotonic() + LEFTOVER_TIMEOUT
        while directory.exists() and time.monotonic() < deadline:
            try:
                FileLock(directory / LOCK_FILE).release()
                return
            except BlockingIOError:
                if self._stopping.wait(_POLL):
                    return

    def _end(self, name: str, child: ChildProcess, code: int) -> str:
        child.stop()
        last = shortened(one_line(child.log_tail(1)), MAX_REASON)
        if code == 0:
            return last or "finished"
        self._failed[name] = f"exit code {code}: {last or child.log}"
        return f"failed: {self._failed[name]}"


def result(sweep: Sweep, outcome: Outcome) -> dict[str, Any]:
    """The object that ``--json`` prints at the end."""
    return {
        "sweep_dir": str(sweep.path),
        "failed": outcome.failed,
        "runs": [
            {
                "name": run.swept.name,
                "setting": run.swept.setting,
                "seed": run.swept.seed,
                "finished": run.finished,
                "metrics": dict(run.report.rounds[-1].metrics)
                if run.report is not None and run.report.rounds
                else {},
            }
            for run in sweep.runs
        ],
    }


def show(directory: Path, outcome: Outcome) -> None:
    """Prints the table of the settings, which runs failed, and what to do next."""
    sweep = read_sweep(directory)
    headings, rows = results(sweep)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    stdout = Console(
        file=sys.stdout, highlight=False, markup=False, width=None if sys.stdout.isatty() else 160
    )
    stdout.print(table)
    if outcome.failed:
        click.echo(f"failed: {names_text([f'{name} ({why})' for name, why in outcome.failed.items()])}")
    if outcome.failed or outcome.interrupted:
        click.echo(f"resume with: {resume_command(directory)}")
    click.echo(f"look at it: {aggregator_command('report', directory)}")
