"""Runs an aggregator as a program: with a display on stderr, trackers, Ctrl-C, and a summary at the end."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

import click

from fl_aggregator.monitoring.tracking.options import TrackingOptions
from fl_shared.cli import signals
from fl_shared.errors import INTERRUPTED, RunFailed, UserError

if TYPE_CHECKING:
    from fl_aggregator.messaging.rejections import Rejections
    from fl_aggregator.monitoring.terminal.display import RunSource
    from fl_aggregator.monitoring.tracking.trackers import Trackers
    from fl_aggregator.server.launch import Launch
    from fl_aggregator.server.outcome import Outcome
    from fl_aggregator.server.runner import Observer
    from fl_shared.protocol.envelope import EnvelopeSource

    class Runnable(RunSource, Protocol):
        """What runs, and can be displayed and stopped."""

        @property
        def scope(self) -> EnvelopeSource:
            """Which run this is, and which start of it."""

        @property
        def rejections(self) -> Rejections:
            """What was refused."""

        @property
        def running(self) -> bool:
            """Whether there is a run to stop."""

        def request_stop(self, reason: str) -> None:
            """Asks the run to end."""

    RunT = TypeVar("RunT", bound=Runnable)


@contextmanager
def run_aggregator(
    launch: Launch,
    make: Callable[[Observer, Trackers], RunT],
    tracking: TrackingOptions,
    log_format: str,
    quiet: bool,
    resume_arguments: list[str],
    hint: str = "",
    resumed_by: str | None = None,
) -> Iterator[tuple[RunT, Callable[[Outcome], None]]]:
    """Yields the aggregator that ``make`` makes, and a function that prints the summary of its outcome.

    ``resumed_by``: the command that continues it; null: this one.

    It is displayed on stderr and followed by trackers, and the first Ctrl-C stops its run cleanly.
    """
    from rich.console import Console

    from fl_aggregator.cli import summary
    from fl_aggregator.configuration.fold_width import shorter_text
    from fl_aggregator.monitoring.terminal.display import Display
    from fl_aggregator.monitoring.terminal.render import FULL_TABLE_WIDTH, table
    from fl_aggregator.monitoring.views.visibility import masked_line
    from fl_aggregator.storage import run_directory
    from fl_shared.system.malloc import keep_freed_memory

    keep_freed_memory()
    gc.freeze()  # what is loaded stays: otherwise each collection looks at all objects of all modules
    if launch.recovered is None and (text := shorter_text(launch.record.settings)) is not None:
        click.echo(text, err=True)
    console = Console(stderr=True)
    display = Display(
        console, launch.record.run, live=console.is_terminal and log_format == "text" and not quiet, hint=hint
    )
    trackers = tracking.trackers(launch.directory.path)
    aggregator = make(display.observe, trackers)
    display.set_source(aggregator)
    _end_on_signals(aggregator)

    def finish(outcome: Outcome) -> None:
        display.stop()
        directory = launch.directory.path
        command = resumed_by or click.get_current_context().command.name or ""
        resume = summary.resume_command(command, outcome, directory, resume_arguments)
        result_line = summary.outcome_line(outcome, display.waiting_notices.refused_text)
        if aggregator.record.attack is not None:
            result_line += f"; {aggregator.record.attack}"
        masked = aggregator.record.masked
        more = [
            summary.personal_line(outcome.state),
            None if masked is None else masked_line(masked),
            summary.privacy_line(outcome.state),
            summary.survey_line(outcome.state, directory),
            summary.check_line(outcome.state),
        ]
        lines = [result_line, *(line for line in more if line is not None)]
        if quiet:
            result_line = "; ".join(lines)
            click.echo(result_line if resume is None else f"{result_line}; resume with: {resume}")
            return
        recent = aggregator.history.recent()
        if (earlier := aggregator.history.round_count - len(recent)) > 0:
            click.echo(f"{earlier} earlier rounds: see {directory / run_directory.HISTORY_FILE}")
        if recent:
            width = None if sys.stdout.isatty() else FULL_TABLE_WIDTH
            stdout = Console(file=sys.stdout, highlight=False, width=width)
            stdout.print(table(recent.values(), narrow=stdout.width < FULL_TABLE_WIDTH))
        if refused := aggregator.rejections.total:
            click.echo(summary.refused_line(refused))
        for line in (*lines, *summary.written_files(directory, outcome.state)):
            click.echo(line)
        if resume is not None:
            click.echo(f"resume with: {resume}")

    with trackers, display:
        yield aggregator, finish


def _end_on_signals(aggregator: Runnable) -> None:
    """Lets the first Ctrl-C (or SIGTERM) stop the run cleanly.

    Before and after the run it raises ``KeyboardInterrupt`` instead: there is nothing to save.
    """

    def first(number: signal.Signals) -> None:
        if not aggregator.running:
            raise KeyboardInterrupt
        aggregator.request_stop(f"interrupted by {number.name}")

    signals.end_on_signals(first)


def exit_code(outcome: Outcome) -> int:
    """Returns the program's exit code: 0 if the run finished, 130 if it was stopped, 1 if it failed.

    If it failed for a mistake of the user, which only an edge could tell, it is 2.
    """
    from fl_aggregator.round.phases import Failed, Finished, Stopped

    match outcome.state.phase:
        case Finished():
            return 0
        case Stopped():
            return INTERRUPTED
        case Failed() if outcome.state.failed_by_user:
            return UserError.exit_code
        case _:
            return RunFailed.exit_code
