"""Draws a snapshot of a run on a terminal: for ``fl-aggregator start``, ``simulate`` and ``watch``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fl_aggregator.monitoring.terminal import text
from fl_aggregator.monitoring.terminal.snapshot import MAX_NAMED_PER_STATE, Snapshot, names_of
from fl_aggregator.monitoring.views.round_record import HistoryRow, RoundRecord
from fl_shared.system.text import duration_text, one_line, size_text

BAR_WIDTH: Final = 30
OTHER_LINES: Final = 13
"""Lines of a view outside the table of rounds."""
MIN_TABLE_ROWS, MAX_TABLE_ROWS = 3, 12
FULL_TABLE_WIDTH: Final = 110
"""Width in characters that the complete table needs, with a few names of missing edges."""
GOOD, BAD, DIM = "green", "bold red", "dim"


class View:
    """A snapshot as rich draws it; without one, the text "connecting …".

    ``heading``: a line above it (a lost connection, an aggregator that is offline).
    """

    def __init__(self, picture: Snapshot | None, heading: str = "") -> None:
        self._snapshot = picture
        self._heading = heading

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts: list[RenderableType] = []
        if self._heading:
            parts.append(Text(self._heading, style=BAD))
        if self._snapshot is None:
            if not parts:
                parts.append(Text("connecting …"))
        else:
            height = options.max_height or console.height
            most = max(MIN_TABLE_ROWS, min(MAX_TABLE_ROWS, height - OTHER_LINES))
            if self._snapshot.recent:
                recent = self._snapshot.recent
                parts.append(
                    table(
                        (recent[number] for number in sorted(recent)[-most:]),
                        narrow=options.max_width < FULL_TABLE_WIDTH,
                    )
                )
            parts.append(_overview(self._snapshot, ascii_only=options.ascii_only))
        yield Group(*parts)


def _overview(picture: Snapshot, *, ascii_only: bool) -> Table:
    status = picture.status
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style=DIM, no_wrap=True)
    grid.add_column()
    grid.add_row("run", Text(f"{status.run} · {status.task}"))
    left = picture.time_left()
    grid.add_row(
        "versions",
        _bar(
            status.version or 0,
            status.rounds,
            f"{status.version or 0} of {status.rounds}"
            + (f", about {duration_text(left)} left" if left is not None else ""),
        ),
    )
    where = status.phase if status.round is None else f"round {status.round}"
    if status.paused is not None:
        grid.add_row(
            "paused", Text(f"{one_line(status.paused)}; continues by itself when there is space", style=BAD)
        )
    grid.add_row(where, _bar(status.have, status.need, _phase_text(picture)))
    if picture.waiting_text:
        grid.add_row("waiting", Text(picture.waiting_text + _until_text(status.seconds_left)))
    for name, value in (("accuracy", picture.accuracy), ("loss", picture.loss)):
        if value is not None:
            curve = text.sparkline(picture.series(name), ascii_only=ascii_only)
            grid.add_row(name, Text.assemble((curve, GOOD), f" {text.metric_text(value)}"))
    if picture.last_round is not None:
        last = picture.last_round
        grid.add_row(
            "bytes",
            Text(f"{size_text(last.bytes.up)} up, {size_text(last.bytes.down)} down in round {last.round}"),
        )
    _add_edges(grid, picture)
    return grid


def _bar(have: int, need: int, said: str) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_row(ProgressBar(total=max(1, need), completed=min(have, need), width=BAR_WIDTH), Text(said))
    return row


def _phase_text(picture: Snapshot) -> str:
    status, crowd = picture.status, picture.open_round_counts
    if status.phase == "selecting":
        return f"{status.have} of {status.need} edges ready"
    if status.phase != "collecting":
        return status.phase
    said = [f"{status.have} of {status.need} in"]
    if crowd is not None:
        said += [f"{crowd[state]} {state}" for state in ("training", "uploading", "selected") if crowd[state]]
        said.append(f"{crowd['missing']} missing")
    if status.seconds_left is not None:
        said.append(f"{duration_text(status.seconds_left)} left")
    return ", ".join(said)


def _until_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f", until {datetime.now() + timedelta(seconds=seconds):%H:%M:%S}"


def _add_edges(grid: Table, picture: Snapshot) -> None:
    status, crowd = picture.status, picture.edge_counts
    if status.phase == "collecting" and status.missing:
        more = " …" if len(status.missing) == 10 else ""
        grid.add_row("at work", Text(", ".join(status.missing) + more))
    if crowd is None:
        return
    there = sum(crowd.counts.values()) - crowd["offline"]
    grid.add_row("edges", Text(f"{there} here, {crowd['offline']} offline"))
    if crowd["missing"]:
        grid.add_row("missing", Text(crowd.describe("missing"), style=BAD))
    if crowd["offline"]:
        grid.add_row("offline", Text(crowd.describe("offline", why=False), style=BAD))


def table(rounds: Iterable[RoundRecord], *, narrow: bool = False) -> Table:
    """A table with a line for each round.

    It has the column ``missing`` only if an edge was missing in a round.

    ``narrow``: in that case, three other columns are left out, so that the table fits into 80 characters.
    """
    shown = list(rounds)
    some_missing = any(record.missing for record in shown)
    columns: dict[str, Callable[[HistoryRow], str | Text]] = {
        "round": lambda row: str(row.round),
        "version": lambda row: Text("abandoned", style=BAD) if row.version is None else str(row.version),
        "in": lambda row: f"{row.participants}/{row.cohort}",
        "accuracy": lambda row: text.metric_text(row.accuracy),
        "loss": lambda row: text.metric_text(row.loss),
        "train loss": lambda row: text.metric_text(row.train_loss),
        "seconds": lambda row: f"{row.seconds:.1f}",
        "up": lambda row: size_text(row.bytes_up),
        "down": lambda row: size_text(row.bytes_down),
    }
    if narrow and some_missing:
        del columns["train loss"], columns["up"], columns["down"]
    found = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        found.add_column(name, justify="right", no_wrap=True)
    if some_missing:
        found.add_column("missing", overflow="fold")
    for record in shown:
        row = HistoryRow.of(record)
        cells = [cell(row) for cell in columns.values()]
        few = [(name, why.split(":")[0]) for name, why in list(record.missing.items())[:MAX_NAMED_PER_STATE]]
        more = [Text(names_of(few, len(record.missing)))] if some_missing else []
        found.add_row(*cells, *more)
    return found
