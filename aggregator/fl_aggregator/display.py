"""What a person at the terminal sees of a run: a live view on a terminal, a line a round elsewhere."""

from __future__ import annotations

import logging
import sys
from collections import deque
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
from fl_aggregator.refusals import Counts
from fl_aggregator.waiting import Waiting, waited_for

_LINES = 12
_KEPT = 100
"""Rounds that are remembered for the table at the end; a person reads no more, and memory does not grow with a run."""


class Display:
    """Shows a run as it goes, on ``console``. Its ``observe`` is the aggregator's observer."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._summaries: deque[Summary] = deque(maxlen=_KEPT)
        self._rounds = 0
        self._state: Run | None = None
        self._live = (
            Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)
            if console.is_terminal
            else None
        )
        self._now = 0.0
        self.waiting = Waiting()

    @property
    def summaries(self) -> tuple[Summary, ...]:
        """The last rounds (at most 100) that have been written to the history, in order."""
        return tuple(self._summaries)

    @property
    def earlier(self) -> int:
        """How many rounds came before those."""
        return self._rounds - len(self._summaries)

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

    def observe(self, state: Run, effects: tuple[do.Effect, ...], now: float) -> None:
        """``now``: run time in seconds."""
        self._state, self._now = state, now
        for effect in effects:
            if isinstance(effect, do.WriteHistory):
                self._summaries.append(effect.summary)
                self._rounds += 1
                if self._live is None:
                    said = line(effect.summary, state.settings.rounds)
                    self._console.print(said, highlight=False, soft_wrap=True)
            elif isinstance(effect, do.AnnounceRound) and self._live is None:
                names = ", ".join(effect.cohort[:20]) + (" …" if len(effect.cohort) > 20 else "")
                what = "first weights" if effect.base is None else f"round {effect.round}"
                self._console.print(f"{what}: selected {names}", highlight=False, soft_wrap=True)
        said_of_waiting = self.waiting.observe(state, effects, now)
        if self._live is None and said_of_waiting is not None:
            self._console.print(said_of_waiting, highlight=False, soft_wrap=True)

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
            Text(_detail(state, have, need, self._now)),
        )
        rounds = table(self.summaries[-_LINES:]) if self._summaries else Text("")
        return Group(rounds, overall)


def _log_to_standard_error() -> None:
    """Whatever standard error is at the moment."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)


def _phase(state: Run) -> str:
    number = getattr(state.phase, "round", None)
    return views.phase_name(state) if number is None else f"round {number}: {views.phase_name(state)}"


def _detail(state: Run, have: int, need: int, now: float) -> str:
    match state.phase:
        case Collecting():
            awaited = views.awaited(state)
            names = ", ".join(awaited[:10]) + (" …" if len(awaited) > 10 else "")
            return f"{have} of {need} in; at work: {names}" if awaited else f"{have} of {need} in"
        case Selecting():
            return waited_for(state, now)
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


def refused_line(refused: Counts, most: int = 10) -> str:
    """What was refused in the whole run, by edge and reason, those with the most first."""
    ranked = sorted(refused.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    said = (f"{who} {', '.join(f'{reason} {n}' for reason, n in why.items())}" for who, why in ranked[:most])
    return f"refused: {'; '.join(said)}" + (f"; and {len(ranked) - most} more" if len(ranked) > most else "")


def table(summaries: tuple[Summary, ...]) -> Table:
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
