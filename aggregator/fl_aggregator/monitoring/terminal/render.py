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
from fl_aggregator.monitoring.views.history_row import HistoryRow
from fl_aggregator.monitoring.views.privacy import INSECURE, SEES, epsilon_text
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.monitoring.views.visibility import visible_text
from fl_shared.protocol import messages as m
from fl_shared.system.text import (
    duration_text,
    number_text,
    one_line,
    quantity_text,
    size_text,
    version_text,
)

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

    def __init__(self, snapshot: Snapshot | None, heading: str = "") -> None:
        self._snapshot = snapshot
        self._heading = heading

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        renderables: list[RenderableType] = []
        if self._heading:
            renderables.append(Text(self._heading, style=BAD))
        if self._snapshot is None:
            if not renderables:
                renderables.append(Text("connecting …"))
        else:
            height = options.max_height or console.height
            max_rows = max(MIN_TABLE_ROWS, min(MAX_TABLE_ROWS, height - OTHER_LINES))
            if self._snapshot.recent:
                recent = self._snapshot.recent
                shown = sorted(recent)[-max_rows:]
                renderables.append(
                    table(
                        (recent[number] for number in shown),
                        narrow=options.max_width < FULL_TABLE_WIDTH,
                        earlier=shown[0] - 1,
                    )
                )
            renderables.append(_overview(self._snapshot, ascii_only=options.ascii_only))
        yield Group(*renderables)


def _overview(snapshot: Snapshot, *, ascii_only: bool) -> Table:
    status = snapshot.status
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style=DIM, no_wrap=True)
    grid.add_column()
    grid.add_row("run", Text(f"{status.run} · {status.task}"))
    if status.attack is not None:
        grid.add_row("attack", Text(one_line(status.attack), style=BAD))
    if status.serving is not None:
        grid.add_row("model", Text(one_line(status.serving)))
    if status.masked is not None:
        grid.add_row("masked", Text(f"the aggregator sees {visible_text(status.masked)}"))
    if status.privacy is not None:
        grid.add_row("privacy", _privacy(status.privacy))
    seconds = snapshot.time_left()
    grid.add_row(
        "versions",
        _bar(
            status.version or 0,
            status.rounds,
            f"{status.version or 0} of {status.rounds}"
            + (f", about {duration_text(seconds)} left" if seconds is not None else ""),
        ),
    )
    last = snapshot.last_round
    is_virtual = last is not None and last.virtual_seconds is not None
    if last is not None and is_virtual:
        passed, real = (
            duration_text(seconds or 0.0) for seconds in (last.virtual_seconds, last.real_seconds)
        )
        grid.add_row("clock", Text(f"virtual: {passed} until round {last.round}, in {real}"))
    if status.first_version is not None:
        grid.add_row("served", Text(version_text(status.first_version, status.version or 0)))
    label = status.phase if status.round is None else f"round {status.round}"
    if status.paused is not None:
        grid.add_row("paused", Text(text.pause_text(status), style=BAD))
    grid.add_row(label, _bar(status.have, status.need, _phase_text(snapshot)))
    if snapshot.waiting_text:
        grid.add_row(
            "waiting",
            Text(snapshot.waiting_text + ("" if is_virtual else _until_text(snapshot.seconds_left))),
        )
    for metric in dict.fromkeys((snapshot.primary, m.LOSS)):
        value = snapshot.latest(metric.name)
        if value is not None:
            line = text.sparkline(snapshot.series(metric.name), ascii_only=ascii_only)
            split = f" ({status.split})" if status.split else ""
            label = f" {quantity_text(value, metric.unit)}{split}"
            grid.add_row(metric.name, Text.assemble((line, GOOD), label))
    if last is not None:
        grid.add_row(
            "bytes",
            Text(f"{size_text(last.bytes.up)} up, {size_text(last.bytes.down)} down in round {last.round}"),
        )
    _add_edges(grid, snapshot)
    return grid


def _privacy(status: m.PrivacyStatus) -> Table | Text:
    """ε as a bar against its budget, and in words."""
    words = f"{epsilon_text(status)}, to whoever {SEES[status.against]}"
    text = Text.assemble((f"{INSECURE}; ", BAD), words) if status.insecure else Text(words)
    return text if status.budget is None else _bar(status.epsilon, status.budget, text)


def _bar(have: float, need: float, label: str | Text) -> Table:
    row = Table.grid(padding=(0, 1))
    text = Text(label) if isinstance(label, str) else label
    row.add_row(ProgressBar(total=need or 1, completed=min(have, need), width=BAR_WIDTH), text)
    return row


def _phase_text(snapshot: Snapshot) -> str:
    status, counts = snapshot.status, snapshot.open_round_counts
    if status.phase == "selecting":
        return f"{status.have} of {status.need} edges ready"
    if status.phase in m.MASKED_PHASES:
        return f"{status.have} of {status.need} {text.MASKED_ANSWERS[status.phase]}"
    if status.phase not in m.COLLECTING_PHASES:
        return status.phase
    phrases = [f"{status.have} of {status.need} in"]
    if counts is not None:
        phrases += [
            f"{counts[state]} {state}" for state in ("training", "uploading", "selected") if counts[state]
        ]
        phrases.append(f"{counts['missing']} missing")
    if snapshot.seconds_left is not None:
        phrases.append(f"{duration_text(snapshot.seconds_left)} left")
    return ", ".join(phrases)


def _until_text(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f", until {datetime.now() + timedelta(seconds=seconds):%H:%M:%S}"


def _add_edges(grid: Table, snapshot: Snapshot) -> None:
    status, counts = snapshot.status, snapshot.edge_counts
    if status.phase in m.COLLECTING_PHASES and status.missing:
        more = " …" if len(status.missing) == 10 else ""
        grid.add_row("at work", Text(", ".join(status.missing) + more))
    if counts is None:
        return
    online = sum(counts.counts.values()) - counts["offline"]
    grid.add_row("edges", Text(f"{online} here, {counts['offline']} offline{counts.evaluators_text}"))
    if counts.computes_text:
        grid.add_row("software", Text(counts.computes_text))
    if counts.machines_text:
        grid.add_row("machines", Text(counts.machines_text))
    if counts.not_ready:
        grid.add_row("not ready", Text(counts.not_ready_text, style=BAD))
    if counts["missing"]:
        grid.add_row("missing", Text(counts.describe("missing"), style=BAD))
    if counts["offline"]:
        grid.add_row("offline", Text(counts.describe("offline"), style=BAD))


def _metric_cell(metric: m.MetricDeclaration) -> Callable[[HistoryRow], str]:
    return lambda row: quantity_text(row.metrics.get(metric.name), metric.unit)


def _staleness_cell(row: HistoryRow) -> str:
    """The mean and the greatest staleness of a version's updates."""
    metrics = row.metrics
    return (
        f"{metrics['staleness_mean']:.2g} ≤ {metrics['staleness_max']:.0f}"
        if "staleness_mean" in metrics
        else "–"
    )


def table(rounds: Iterable[RoundRecord], *, narrow: bool = False, earlier: int = 0) -> Table:
    """A table with a line for each round, and a column for each metric that the task declares.

    It has the column ``missing`` only if an edge was missing in a round, ``staleness`` only in an asynchronous run, and
    ``split`` only if the versions were evaluated on several splits; otherwise the caption names the split.

    ``narrow``: all metrics but the primary one and the loss are left out, and with a column ``missing`` three other
    columns, so that the table fits into 80 characters.
    ``earlier``: how many rounds before these are left out, which the caption says.
    """
    records = list(rounds)
    some_missing = any(record.missing for record in records)
    declared = records[-1].declared if records else []
    splits = sorted({record.split for record in records if record.split is not None})
    is_asynchronous = any("staleness_mean" in record.metrics for record in records)
    columns: dict[str, Callable[[HistoryRow], str | Text]] = {
        "round": lambda row: str(row.round),
        "version": lambda row: Text("abandoned", style=BAD) if row.version is None else str(row.version),
        "in": lambda row: f"{row.participants}/{row.cohort}",
        **{metric.name: _metric_cell(metric) for metric in (declared[:1] if narrow else declared)},
        "loss": _metric_cell(m.LOSS),
        **({"split": lambda row: row.split or "–"} if len(splits) > 1 else {}),
        **({"staleness": _staleness_cell} if is_asynchronous else {}),
        "train loss": lambda row: number_text(row.metrics.get("train_loss")),
        "seconds": lambda row: f"{row.seconds:.1f}",
        "up": lambda row: size_text(row.bytes_up),
        "down": lambda row: size_text(row.bytes_down),
    }
    if narrow and some_missing:
        del columns["train loss"], columns["up"], columns["down"]
    captions = [f"measured on the {splits[0]} split"] if len(splits) == 1 else []
    if earlier > 0:
        captions.append(f"{earlier} earlier {'round is' if earlier == 1 else 'rounds are'} not shown")
    result = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        caption="; ".join(captions) or None,
        caption_justify="left",
    )
    for name in columns:
        result.add_column(name, justify="right", no_wrap=True)
    if some_missing:
        result.add_column("missing", overflow="fold")
    for record in records:
        row = HistoryRow.of(record)
        cells = [cell(row) for cell in columns.values()]
        first_missing = [
            (name, reason.split(":")[0])
            for name, reason in list(record.missing.items())[:MAX_NAMED_PER_STATE]
        ]
        extra_cells = [Text(names_of(first_missing, len(record.missing)))] if some_missing else []
        result.add_row(*cells, *extra_cells)
    return result
