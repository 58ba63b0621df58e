"""A run as lines of text: a metric, a curve, a round, a whole status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fl_aggregator.monitoring.terminal.snapshot import Snapshot, names_of
from fl_aggregator.monitoring.views.history_row import HistoryRow
from fl_aggregator.monitoring.views.privacy import epsilon_text, status_line
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.monitoring.views.visibility import masked_line
from fl_aggregator.round.two_machines import TWO_MACHINES
from fl_shared.protocol import messages as m
from fl_shared.system.invocation import aggregator_command
from fl_shared.system.text import (
    duration_text,
    names_text,
    natural_order,
    one_line,
    quantity_text,
    size_text,
    version_text,
)

BAR_CHARACTERS: Final = "▁▂▃▄▅▆▇█"
ASCII_BAR_CHARACTERS: Final = "_.-=+*#@"
"""The bars on a terminal that can show only ASCII."""
TREND_WIDTH: Final = 30
"""Width of a curve, in characters."""


def sparkline(values: Sequence[float], width: int = TREND_WIDTH, *, ascii_only: bool = False) -> str:
    """The values as a line of bars, one character each, at most ``width`` (2 or more) characters.

    If there are more values, the line shows some of them at even distances, with the first and the last.
    """
    if not values:
        return ""
    points = list(values)
    if len(points) > width:
        points = [points[round(index * (len(points) - 1) / (width - 1))] for index in range(width)]
    low, high = min(points), max(points)
    bars = ASCII_BAR_CHARACTERS if ascii_only else BAR_CHARACTERS
    if high <= low:
        return bars[len(bars) // 2] * len(points)
    # Halved, since the difference of two floats may be larger than a float can be.
    scale = [(value / 2 - low / 2) / (high / 2 - low / 2) for value in points]
    return "".join(bars[min(len(bars) - 1, int(fraction * len(bars)))] for fraction in scale)


def scores_text(primary: m.MetricDeclaration, metrics: Mapping[str, float], split: m.Split | None) -> str:
    """The primary metric with its unit, the loss, and the split: ``mae 21.85 kWh, loss 0.4371 (test)``."""
    shown = dict.fromkeys((primary, m.LOSS))
    text = ", ".join(f"{one.name} {quantity_text(metrics.get(one.name), one.unit)}" for one in shown)
    return text if split is None else f"{text} ({split})"


def round_line(record: RoundRecord, rounds: int) -> str:
    """A round that has ended, in one line. ``rounds``: the number of versions that the run is to make."""
    row = HistoryRow.of(record)
    outcome = (
        f"abandoned: {one_line(record.reason or '')}"
        if row.version is None
        else f"version {row.version} of {rounds}"
    )
    line = (
        f"round {row.round}: {outcome}, {row.participants} of {row.cohort} in, "
        f"{scores_text(record.primary, row.metrics, row.split)}, {duration_text(row.seconds)}{record.clock_text}, "
        f"{size_text(row.bytes_up)} up, {size_text(row.bytes_down)} down"
    )
    if record.masked:
        line += ", masked"
    if record.privacy is not None:
        line += f", {epsilon_text(record.privacy)}"
    if "staleness_mean" in row.metrics:
        line += (
            f", staleness {row.metrics['staleness_mean']:.2g} (at most {row.metrics['staleness_max']:.0f})"
        )
    if "pace_deadline" in row.metrics:
        line += f", deadline {duration_text(row.metrics['pace_deadline'])}"
        line += f", {row.metrics['pace_over_select']:.0f} more edges selected than needed"
    if (mean := row.metrics.get("edges_mean")) is not None:
        (worst, value), *_ = record.worst_edges.items() or [("?", row.metrics.get("edges_worst"))]
        unit = record.primary.unit
        of = "" if record.edges_version in (None, row.version) else f" with version {record.edges_version}"
        line += f"; edges{of}: mean {quantity_text(mean, unit)}, worst {quantity_text(value, unit)} (edge {worst})"
    if record.delayed:
        line += f"; messages to or from {names_text(record.delayed)} were late or lost"
    if record.similarity is not None and record.similarity.outliers:
        unlike = record.similarity.outliers
        line += f"; unlike the others: {names_text([f'{name} ({unlike[name]})' for name in natural_order(unlike)])}"
    return f"{line}; missing: {missing_text(record)}" if record.missing else line


def missing_text(record: RoundRecord, limit: int = 10) -> str:
    """The edges that were missing in a round, with the reasons; at most ``limit`` of them are named."""
    return names_of(list(record.missing.items())[:limit], len(record.missing))


MASKED_ANSWERS: Final = {"agreeing": "have signed what is summed", "unmasking": "have opened the sum"}
"""What the members of a masked round have done, by phase."""


def pause_text(status: m.Status) -> str:
    """Why the run is paused, and what ends that."""
    end = (
        f"{aggregator_command('resume')} continues it"
        if status.held
        else "continues by itself when that is over"
    )
    return f"{one_line(status.paused or '')}; {end}"


def progress_line(snapshot: Snapshot) -> str:
    """The phase of the run and its progress, in one line."""
    status = snapshot.status
    phase = status.phase if status.round is None else f"round {status.round}: {status.phase}"
    phrases = [phase]
    if status.paused is not None:
        phrases = [f"paused: {pause_text(status)}"]
    elif status.phase == "selecting":
        phrases.append(snapshot.waiting_text or f"{status.have} of {status.need} edges ready")
    elif status.phase in m.COLLECTING_PHASES:
        phrases.append(f"{status.have} of {status.need} in")
        counts = snapshot.open_round_counts
        if counts is not None and counts["missing"]:
            phrases.append(f"{counts['missing']} missing: {counts.describe('missing')}")
        if status.missing:
            names = f"{', '.join(status.missing)}{'' if len(status.missing) < 10 else ' …'}"
            phrases.append(f"waiting for {names}" if status.phase == "collecting" else f"at work: {names}")
    elif status.phase in m.MASKED_PHASES:
        phrases.append(f"{status.have} of {status.need} {MASKED_ANSWERS[status.phase]}")
        if status.missing:
            phrases.append(
                f"waiting for {', '.join(status.missing)}{'' if len(status.missing) < 10 else ' …'}"
            )
    if snapshot.seconds_left is not None:
        phrases.append(f"at most {duration_text(snapshot.seconds_left)} left")
    return ", ".join(phrases)


def summary_lines(snapshot: Snapshot) -> list[str]:
    """A run as lines: its task and versions, its phase, its metrics, its last round and its edges."""
    status, edge_counts = snapshot.status, snapshot.edge_counts
    lines = [
        f"run {status.run}: {status.task}, version {status.version or 0} of {status.rounds}",
        progress_line(snapshot),
    ]
    seconds = snapshot.time_left()
    if seconds is not None:
        lines[0] += f", about {duration_text(seconds)} left"
    if status.first_version is not None:
        lines[0] += f", serves {version_text(status.first_version, status.version or 0)}"
    if status.attack is not None:
        lines.insert(1, one_line(status.attack))
    if status.serving is not None:
        lines.insert(1, one_line(status.serving))
    if status.masked is not None:
        lines.insert(1, masked_line(status.masked))
    if status.privacy is not None:
        lines.insert(1, status_line(status.privacy))
    primary = snapshot.primary
    names = dict.fromkeys((primary.name, m.LOSS.name))
    latest = {name: value for name in names if (value := snapshot.latest(name)) is not None}
    if latest:
        curve = sparkline(snapshot.series(primary.name))
        lines.append(f"{scores_text(primary, latest, status.split)}{curve and '  ' + curve}")
    if snapshot.last_round is not None:
        lines.append(round_line(snapshot.last_round, status.rounds))
    if edge_counts is not None:
        counts = ", ".join(f"{edge_counts[state]} {state}" for state in edge_counts.counts) or "none yet"
        lines.append(f"edges: {counts}{edge_counts.evaluators_text}")
        if edge_counts.computes_text:
            lines.append(f"the edges compute with {edge_counts.computes_text}")
        if edge_counts.machines_text:
            lines.append(f"the edges run on {edge_counts.machines_text}")
        if edge_counts.two_machines:
            lines.append(f"{', '.join(edge_counts.two_machines)}: {TWO_MACHINES}")
        if edge_counts.not_ready:
            lines.append(f"not ready: {edge_counts.not_ready_text}")
        if edge_counts["missing"]:
            lines.append(f"missing: {edge_counts.describe('missing')}")
        if edge_counts["offline"]:
            lines.append(f"offline: {edge_counts.describe('offline')}")
    return lines
