"""The sections of a report about one run. A section without data gives the reason, or is left out (null)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.tools.report import figures
from fl_aggregator.tools.report.attackers import naming_of
from fl_aggregator.tools.report.comparison import versions_to_reach
from fl_aggregator.tools.report.markup import Child, Markup, table, tag
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.settings import setting_text, settings_of
from fl_shared.protocol import messages as m
from fl_shared.system.text import (
    duration_text,
    names_text,
    natural_order,
    number_text,
    quantity_text,
    size_text,
    version_text,
)
from fl_shared.tensors.encodings.float32 import FLOAT32

MAX_REPORT_ROWS: Final = 1000
"""Number of rows in a table. The page says how many there are in all, and ``--csv`` contains all rounds."""
PHASE_LABELS: Final = {
    "selecting": "select",
    "collecting": "collect",
    "agreeing": "agree",
    "unmasking": "unmask",
    "aggregating": "average",
    "buffering": "buffer",
    "evaluating": "evaluate",
}
"""Names of phases in the head of a table."""
STALENESS: Final = m.MetricDeclaration(name="staleness", unit="versions", higher_is_better=False)
SECONDS: Final = m.MetricDeclaration(name="seconds", unit="s", higher_is_better=False)
EDGES: Final = m.MetricDeclaration(name="edges", unit="edges", higher_is_better=False)


def section(title: str, *children: Child, note: str | None = None, long: bool = False) -> Markup:
    """A section with a heading. ``note``: a text under it. ``long``: may be split between printed pages."""
    note_tag = tag("p", note, class_="note") if note else None
    return tag("section", tag("h2", title), note_tag, *children, class_="long" if long else None)


def format_number(value: float | None, digits: int = 4) -> str:
    """A number with ``digits`` decimal places; a dash for null."""
    return "–" if value is None else f"{value:.{digits}f}"


def tiles(run: RunReport) -> Markup:
    """The most important numbers of a run: the primary metric, loss, versions, duration and traffic."""
    primary = run.primary
    newest, best = run.last(primary.name), run.best(primary)
    measured = next((one for one in reversed(run.rounds) if primary.name in one.metrics), None)
    label, rounds = f"{primary.name} on {run.splits_text}", run.settings.get("rounds", "?")
    if measured is not None and measured.first_served is not None:
        label += f", {version_text(measured.first_served, measured.version or 0)}"
    entries: list[tuple[str, str]] = [
        (
            quantity_text(newest, primary.unit),
            label if newest == best else f"{label} (best {quantity_text(best, primary.unit)})",
        ),
        *([] if primary == m.LOSS else [(number_text(run.last("loss")), "loss")]),
        (str(newest_version(run)), "of 1 version" if rounds == 1 else f"of {rounds} versions"),
        (duration_text(sum(record.duration for record in run.rounds)), f"in rounds{run.clock_text}"),
        (size_text(sum(line.bytes.up for line in run.rounds)), f"up, from edges{_encodings(run)}"),
        (size_text(sum(line.bytes.down for line in run.rounds)), "down, published"),
    ]
    if (target := run.target) is not None:
        reached = versions_to_reach(run, target)
        entries.insert(
            1,
            (
                "not reached" if reached is None else f"version {reached}",
                f"target {target.metric} {target.value:g}",
            ),
        )
    return tag("div", *(tag("div", tag("b", big), tag("span", small), class_="tile") for big, small in entries),
               class_="tiles")  # fmt: skip


def _encodings(run: RunReport) -> str:
    found = sorted({line.encoding for line in run.rounds} - {FLOAT32.name})  # also that of initial weights
    return f" ({', '.join(found)})" if found else ""


def newest_version(run: RunReport) -> int:
    """The number of the newest version, 0 if there is none."""
    return max((record.version for record in run.rounds if record.version is not None), default=0)


def learning(run: RunReport) -> Markup:
    """Curves of all metrics by round: of the versions, and of the edges' models on their holdouts."""
    drawn = []
    for metric in run.measured:
        lines = [
            (label, *points)
            for label, name in (
                (run.splits_text, metric.name),
                ("edges, before training", f"before_{metric.name}"),
                ("edges, after training", f"after_{metric.name}"),
                ("on training data", f"train_{metric.name}"),
            )
            if (points := run.series(name))[0]
        ]
        if lines:
            drawn.append(
                figures.curves(
                    f"{run.name}/{metric.name}", metric.name, lines, x_label="round", metric=metric
                )
            )
    note = (
        f"Of each version, on the {run.splits_text} split; and of the edges' models on their own holdouts, before and "
        "after training."
    )
    if any(record.first_served is not None for record in run.rounds):
        note += f" Each version was measured as the mean of the last ones (--serve {run.settings.get('serve', '?')})."
    if not drawn:
        return section("Learning", note="Nothing was measured: no edge evaluates, and none has a holdout.")
    return section("Learning", tag("div", *drawn, class_="figures"), note=note)


def time_and_traffic(run: RunReport) -> Markup:
    """Seconds by phase and bytes, for each round."""
    phases = [(name, _phase(name)) for name in figures.PHASE_NAMES]
    traffic: list[tuple[str, Callable[[RoundRecord], float]]] = [
        ("up", lambda line: line.bytes.up / 1e6), ("down", lambda line: line.bytes.down / 1e6)
    ]  # fmt: skip
    drawn = [
        figures.stacked_bars(f"{run.name}/seconds", "Seconds by phase", "s", run.rounds, phases),
        figures.stacked_bars(f"{run.name}/bytes", "Bytes", "MB", run.rounds, traffic),
    ]
    names = (("mean", "staleness_mean"), ("greatest", "staleness_max"))
    stale = [(label, *points) for label, name in names if (points := run.series(name))[0]]
    if stale:
        drawn.append(
            figures.curves(
                f"{run.name}/staleness", "Staleness of updates", stale, x_label="round", metric=STALENESS
            )
        )
    deadlines, extra = (run.series(name) for name in m.PACE_METRICS)
    if deadlines[0]:
        taken = [line.round for line in run.rounds], [line.duration for line in run.rounds]
        beside = [("deadline", *deadlines), ("taken", *taken)]
        drawn += [
            figures.curves(f"{run.name}/deadlines", "Deadlines", beside, x_label="round", metric=SECONDS),
            figures.curves(
                f"{run.name}/over-selection",
                "Over-selection",
                [("extra edges", *extra)],
                x_label="round",
                metric=EDGES,
            ),
        ]
    return section(
        "Time and traffic", tag("div", *drawn, class_="figures"),
        note="Evaluation runs during the next round. A published model counts once, however many edges fetch it."
        + clock_note(run),
    )  # fmt: skip


def clock_note(run: RunReport) -> str:
    """Says how long a run in virtual time really took; empty for one in real time."""
    if not run.clock_text:
        return ""
    real = max(line.real_seconds or 0.0 for line in run.rounds)
    return f" Seconds are those of virtual time; the run took {duration_text(real)} of real time."


def _phase(name: str) -> Callable[[RoundRecord], float]:
    return lambda line: line.seconds.get(name, 0.0)


def rounds(run: RunReport) -> Markup:
    """A table of the last ``MAX_REPORT_ROWS`` rounds."""
    records = run.rounds[-MAX_REPORT_ROWS:]
    phases = [name for name in figures.PHASE_NAMES if any(name in record.seconds for record in records)]
    headings = ["round", "outcome", "in", *(metric.name for metric in run.measured), "split", "train loss",
    *(PHASE_LABELS[name] for name in phases), "up",
            "down", "missing"]  # fmt: skip
    rows = [
        [line.round, _outcome(line), f"{len(line.participants)}/{len(line.cohort)}",
         *(quantity_text(line.metrics.get(metric.name), metric.unit) for metric in run.measured),
         line.split or "–", number_text(line.metrics.get("train_loss")),
         *(format_number(line.seconds.get(name), 2) for name in phases),
         size_text(line.bytes.up), size_text(line.bytes.down), _missing_text(line)]
        for line in records
    ]  # fmt: skip
    omitted = len(run.rounds) - len(records)
    note = f"Phases in seconds{run.clock_text}."
    if omitted:
        note += (
            f" The last {len(records)} rounds; {omitted} earlier ones are not shown; --csv FILE writes all."
        )
    return section(
        "Rounds", table(headings, rows, caption="Rounds", text_columns=frozenset({1, len(headings) - 1})), long=True,
        note=note,
    )  # fmt: skip


def _outcome(record: RoundRecord) -> Markup:
    if record.outcome == "committed":
        return tag("span", f"version {record.version}", class_="good")
    return tag("span", "abandoned", f": {record.reason}" if record.reason else None, class_="bad")


def _missing_text(record: RoundRecord, limit: int = 12) -> Child:
    """The missing edges of a round, grouped by reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in record.missing_without_surplus.items():
        by_reason.setdefault(reason, []).append(name)
    groups = [f"{names_text(names, limit)} ({why})" for why, names in by_reason.items()]
    return "; ".join(groups[:limit]) + (
        f"; and {len(groups) - limit} more reasons" if len(groups) > limit else ""
    )


def labels(run: RunReport) -> Markup | None:
    """How often each label occurs on each edge; null unless the run is a simulation."""
    if not run.label_counts:
        return None
    names, called = figures.evenly_spaced(natural_order(run.label_counts)), naming_of(run)
    classes = list(
        dict.fromkeys(label for edge_counts in run.label_counts.values() for label in edge_counts.labels)
    )
    note = (
        f"How the scheme {run.settings.get('partition', '')} split the data: the area of a disc is the "
        "number of examples. Known because all edges were simulated on one machine; real edges never send this."
    )
    if len(names) < len(run.label_counts):
        note += f" {len(names)} of {len(run.label_counts)} edges, evenly chosen."
    if len(classes) > 100:
        return section("Labels", note=f"{len(classes)} classes: too many to draw.")
    drawn = figures.labels(
        f"{run.name}/labels", [(called(name), run.label_counts[name].labels) for name in names], classes
    )
    counts = {name: found.labels for name, found in run.label_counts.items()}
    rows = [[called(name), sum(counts[name].values()), *(counts[name].get(c, 0) for c in classes)]
            for name in natural_order(run.label_counts)[:MAX_REPORT_ROWS]]  # fmt: skip
    counts_table = table(["edge", "total", *classes], rows, caption="Examples of each label on each edge")
    return section(
        "Labels on the edges", drawn, tag("details", tag("summary", "As a table"), counts_table), note=note
    )


def primary_by_edge(run: RunReport) -> Markup | None:
    """The primary metric of each edge's newest update on its holdout; null if none was measured."""
    metric = run.primary
    called = naming_of(run)
    edge_values = [
        (called(name), run.latest_results[name].after[metric.name])
        for name in natural_order(run.latest_results)
        if metric.name in run.latest_results[name].after
    ]
    if not edge_values:
        return None
    return section(
        f"{metric.name} of each edge",
        figures.values_by_edge(f"{run.name}/by-edge", metric, edge_values, run.last(metric.name)),
        note="Of each edge's newest update, on the edge's own holdout.",
    )  # fmt: skip


def rejections(run: RunReport) -> Markup | None:
    """The messages that were refused, by edge and reason; null if there were none."""
    counts: dict[tuple[str, str], int] = {}
    for record in run.rounds:
        for name, reasons in record.refused.items():
            for reason, count in reasons.items():
                counts[name, reason] = counts.get((name, reason), 0) + count
    if not counts:
        return None
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    called = naming_of(run)
    rows = [(called(name), reason, times) for (name, reason), times in ranked[:MAX_REPORT_ROWS]]
    return section("Refused", table(["edge", "reason", "times"], rows, caption="Refused",
    text_columns=frozenset({0, 1})),
                   note="Messages that the aggregator refused, by edge and reason.")  # fmt: skip


def settings(run: RunReport) -> Markup:
    """All options of the run with the parts of its strategy, and the versions of packages."""
    entries = (
        tag("div", tag("dt", name.replace("_", "-")), tag("dd", setting_text(name, value)))
        for name, value in settings_of(run).items()
    )
    return section("Settings", tag("dl", *entries, class_="settings"))
