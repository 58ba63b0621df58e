"""What a person at the terminal sees of a run: a live view on a terminal, a line a round elsewhere."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fl_aggregator import effects as do
from fl_aggregator import views
from fl_aggregator.phases import Collecting, Evaluating, Failed, Finished, Run, Selecting, Stopped, Summary

_LINES = 12


class Display:
    """Shows a run as it goes, on ``console``. Its ``observe`` is the aggregator's observer."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._summaries: list[Summary] = []
        self._state: Run | None = None
        self._live = (
            Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )
        self._said_ready = -1

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """Every round that has been written to the history, in order."""
        return tuple(self._summaries)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
            _log_to_standard_error()  # which is the live view's now: a log line appears above it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Takes the live view away; stopping twice is fine."""
        if self._live is not None:
            self._live.stop()
            _log_to_standard_error()

    def observe(self, state: Run, effects: tuple[do.Effect, ...]) -> None:
        self._state = state
        for effect in effects:
            if isinstance(effect, do.WriteHistory):
                self._summaries.append(effect.summary)
                if self._live is None:
                    self._console.print(line(effect.summary, state.settings.rounds), highlight=False)
            elif isinstance(effect, do.AnnounceRound) and self._live is None:
                names = ", ".join(effect.cohort[:20]) + (" …" if len(effect.cohort) > 20 else "")
                what = "first weights" if effect.base is None else f"round {effect.round}"
                self._console.print(f"{what}: selected {names}", highlight=False, soft_wrap=True)
        if self._live is None and isinstance(state.phase, Selecting):
            self._say_waiting(state)

    def _say_waiting(self, state: Run) -> None:
        """Off a terminal: how many edges are ready, each time it changes."""
        have, need = views.progress(state)
        if have < need and have != self._said_ready:
            self._said_ready = have
            said = f"waiting for edges: {have} of {need} ready, {_present(state)} present"
            self._console.print(said, highlight=False)

    def _render(self) -> RenderableType:
        state = self._state
        if state is None:
            return Text("connecting …")
        have, need = views.progress(state)
        overall = Table.grid(padding=(0, 1))
        overall.add_row(
            Text("versions"),
            ProgressBar(total=state.settings.rounds, completed=state.version, width=30),
            Text(f"{state.version} of {state.settings.rounds}"),
        )
        overall.add_row(
            Text(_phase(state)),
            ProgressBar(total=max(need, 1), completed=have, width=30),
            Text(_detail(state, have, need)),
        )
        rounds = table(self._summaries[-_LINES:]) if self._summaries else Text("")
        return Group(rounds, overall)


def _log_to_standard_error() -> None:
    """Whatever standard error is at the moment."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)


def _present(state: Run) -> int:
    return sum(1 for client in state.roster.clients.values() if client.present)


def _phase(state: Run) -> str:
    number = getattr(state.phase, "round", None)
    return views.phase_name(state) if number is None else f"round {number}: {views.phase_name(state)}"


def _detail(state: Run, have: int, need: int) -> str:
    match state.phase:
        case Collecting():
            awaited = views.awaited(state)
            names = ", ".join(awaited[:10]) + (" …" if len(awaited) > 10 else "")
            return f"{have} of {need} in; at work: {names}" if awaited else f"{have} of {need} in"
        case Selecting():
            return f"{have} of {need} edges ready, {_present(state)} present"
        case Evaluating():
            waiting = sorted({name for evaluation in state.evaluations for name in evaluation.waiting})
            return f"waiting for the evaluation by {', '.join(waiting[:10])}"
        case Failed(detail=detail) | Stopped(reason=detail):
            return detail
        case Finished(reason=reason):
            return "the target accuracy is reached" if reason == "target-accuracy" else "all rounds are done"
        case _:
            return ""


def _metric(summary: Summary, *names: str) -> str:
    for name in names:
        if name in summary.metrics:
            return f"{summary.metrics[name]:.4f}"
    return "–"


def _seconds(summary: Summary) -> float:
    return sum(seconds for phase, seconds in summary.seconds.items() if phase != "evaluating")


def line(summary: Summary, rounds: int) -> str:
    """A round in one line."""
    missing = "; ".join(f"{name} {why}" for name, why in list(summary.missing.items())[:10])
    ended = (
        f"version {summary.model.version} of {rounds}"
        if summary.model is not None
        else f"abandoned: {summary.reason}"
    )
    return (
        f"round {summary.round}: {ended}, {len(summary.participants)} of {len(summary.cohort)} in, "
        f"accuracy {_metric(summary, 'accuracy')}, loss {_metric(summary, 'loss')}, {_seconds(summary):.1f} s"
        + (f"; missing: {missing}" if missing else "")
    )


def table(summaries: list[Summary] | tuple[Summary, ...]) -> Table:
    """The rounds, for a person. ``missing`` names who was selected and did not contribute."""
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("round", "version", "in", "accuracy", "loss", "train loss", "seconds"):
        rows.add_column(name, justify="right")
    rows.add_column("missing")
    for summary in summaries:
        rows.add_row(
            str(summary.round),
            "abandoned" if summary.model is None else str(summary.model.version),
            f"{len(summary.participants)}/{len(summary.cohort)}",
            _metric(summary, "accuracy"),
            _metric(summary, "loss"),
            _metric(summary, "train_loss"),
            f"{_seconds(summary):.1f}",
            ", ".join(f"{name} ({why.split(':')[0]})" for name, why in summary.missing.items()),
        )
    return rows
