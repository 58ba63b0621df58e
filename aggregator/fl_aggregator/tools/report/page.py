"""Assembles the page: one HTML file that needs neither a network nor a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import version

from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.tools.report import figures, sections
from fl_aggregator.tools.report.comparison import (
    assign_unique_names,
    common_primary,
    comparability_note,
    comparison_target,
    settings_that_differ,
    versions_to_reach,
)
from fl_aggregator.tools.report.confusion import confusion
from fl_aggregator.tools.report.drawing import SERIES_COLOURS
from fl_aggregator.tools.report.edge_values import edge_values, personal
from fl_aggregator.tools.report.environments import environments
from fl_aggregator.tools.report.markup import Child, Markup, table, tag
from fl_aggregator.tools.report.participation import participation
from fl_aggregator.tools.report.privacy import privacy
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.sections import newest_version, section
from fl_aggregator.tools.report.settings import setting_text
from fl_aggregator.tools.report.similarity import similarity
from fl_aggregator.tools.report.strategy import strategy
from fl_aggregator.tools.report.style import STYLE
from fl_aggregator.tools.report.survey import is_survey, survey
from fl_aggregator.tools.report.visibility import visibility
from fl_shared.protocol import messages as m
from fl_shared.system.text import duration_text, number_text, quantity_text, size_text


def page(runs: Sequence[RunReport]) -> str:
    """The page about one run, or about several in comparison. Raises ``UserError`` without matplotlib."""
    assign_unique_names(runs)
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    return document(title, _single_run(runs[0]) if len(runs) == 1 else _compared_runs(runs))


def document(title: str, body: Sequence[Child]) -> str:
    """A whole page."""
    html = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag(
                "meta",
                http_equiv="Content-Security-Policy",
                content="default-src 'none'; style-src 'unsafe-inline'",
            ),
            tag("title", title),
            tag("style", STYLE),
        ),
        tag(
            "body",
            *body,
            tag(
                "footer",
                f"Written by fl-mqtt {version('fl-mqtt')} from the run directories.",
            ),
        ),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{html}\n"


def _single_run(run: RunReport) -> list[Child]:
    settings = run.settings
    names = ("clients",) if is_survey(run) else ("clients", "rounds")
    about = [f"{settings[name]} {name}" for name in names if name in settings]
    subtitle = " · ".join(
        [f"task {settings.get('task', 'unknown')}", *about, f"partition {settings.get('partition', '?')}"]
    )
    return [
        tag("header", tag("h1", run.name), tag("p", subtitle, class_="sub"), tag("p", _state_text(run), class_="sub"),
            _attack(run), None if is_survey(run) else sections.tiles(run)),
        tag("main", faults([run]), *_run_sections(run)),
    ]  # fmt: skip


def _state_text(run: RunReport) -> Markup:
    """When the run started and ended, or how many versions it has made so far."""
    began = f"run {run.record.get('run', '?')}, started {run.record.get('started', '?')}"
    incarnation = run.record.get("incarnation", 1)
    resumed_text = (
        f", resumed {incarnation - 1} time{'' if incarnation == 2 else 's'}"
        if isinstance(incarnation, int) and incarnation > 1
        else ""
    )
    if run.ended:
        return tag("span", f"{began}, ended {run.record['ended']}{resumed_text}")
    open_end = f"not finished: {newest_version(run)} of {run.settings.get('rounds', '?')} versions"
    return tag("span", f"{began}{resumed_text}; ", tag("b", open_end, class_="bad"))


def _attack(run: RunReport) -> Markup | None:
    return None if run.attack is None else tag("p", tag("b", f"A test: {run.attack}.", class_="bad"))


def _run_sections(run: RunReport) -> list[Child]:
    if not run.rounds:
        nothing = section("Rounds", note="No round has ended yet: the history is empty.")
        return [nothing, sections.labels(run), sections.settings(run)]
    if is_survey(run):
        return [
            survey(run), privacy(run), environments(run), sections.rejections(run), sections.rounds(run),
            sections.settings(run),
        ]  # fmt: skip
    return [
        sections.learning(run), _side_by_side(sections.primary_by_edge(run), confusion(run)),
        edge_values(run), personal(run), sections.labels(run), participation(run),
        visibility(run), privacy(run), environments(run), sections.time_and_traffic(run), sections.rejections(run),
        strategy(run), similarity(run),
        sections.rounds(run),
        sections.settings(run),
    ]  # fmt: skip


def _side_by_side(first: Markup | None, second: Markup | None) -> Markup | None:
    """Two sections next to each other if the page is wide enough; null if both are null."""
    present = [child for child in (first, second) if child is not None]
    return tag("div", *present, class_="pair") if present else None


def faults(runs: Sequence[RunReport]) -> Markup | None:
    """What could not be read of the runs; null if that is nothing."""
    found = [fault for run in runs for fault in run.faults]
    if not found:
        return None
    return section("Unreadable data", tag("ul", *(tag("li", fault) for fault in found)),
                   note="Not included below.")  # fmt: skip


def _compared_runs(runs: Sequence[RunReport]) -> list[Child]:
    settings = {str(run.settings.get("task", "?")) for run in runs}
    sub = f"task {', '.join(sorted(settings))}"
    return [
        tag("header", tag("h1", f"{len(runs)} runs compared"), tag("p", sub, class_="sub")),
        tag("main", faults(runs), _outcomes(runs), _comparison_curves(runs), _differences(runs),
            *(tag("details", tag("summary", run.name, " on its own"), tag("p", _state_text(run), class_="sub"),
                  _attack(run), sections.tiles(run), *_run_sections(run)) for run in runs)),
    ]  # fmt: skip


def _legend_entry(run: RunReport, index: int) -> Markup:
    square = tag(
        "i", class_="key", style=f"background: var(--series-{index % SERIES_COLOURS + 1})", aria_hidden="true"
    )
    return tag("span", square, run.name)


def _outcomes(runs: Sequence[RunReport]) -> Markup:
    target, primary, warning = comparison_target(runs), common_primary(runs), comparability_note(runs)
    headings = [
        "run",
        "versions",
        "primary metric" if primary is None else primary.name,
        "best",
        "loss",
        "split",
        "target reached after",
        "time in rounds",
        "up",
        "down",
        "missing",
    ]
    rows = []
    for index, run in enumerate(runs):
        reached = None if target is None else versions_to_reach(run, target)
        rows.append(
            [_legend_entry(run, index), f"{newest_version(run)}{'' if run.ended else ' (not finished)'}",
             _primary_text(run, run.last(run.primary.name), primary),
             _primary_text(run, run.best(run.primary), primary),
             number_text(run.last("loss")), _split_text(run, warning),
             "–" if reached is None else f"{reached} versions",
             duration_text(sum(line.duration for line in run.rounds)) + run.clock_text,
             size_text(sum(line.bytes.up for line in run.rounds)),
             size_text(sum(line.bytes.down for line in run.rounds)),
             sum(len(record.missing_without_surplus) for record in run.rounds)]
        )  # fmt: skip
    note = None if target is None else f"The target: {target.metric} {target.value:g}."
    marked = None if warning is None else tag("p", tag("b", warning, class_="bad"))
    return section("Results", marked, table(headings, rows, caption="Runs"), note=note)


def _primary_text(run: RunReport, value: float | None, common: m.MetricDeclaration | None) -> str:
    name = "" if common is not None else f"{run.primary.name} "
    return name + quantity_text(value, run.primary.unit)


def _split_text(run: RunReport, warning: str | None) -> Markup:
    return tag("span", run.splits_text, class_="bad" if warning else None)


def _clock_text(runs: Sequence[RunReport]) -> str:
    """Says which clock the seconds of the runs are of, if not all are of real time."""
    clocks = {run.clock_text for run in runs}
    return " of real or virtual time" if len(clocks) > 1 else clocks.pop()


def _comparison_curves(runs: Sequence[RunReport]) -> Markup:
    if not any(run.rounds for run in runs):
        return section("Learning", note="No round of any run has ended yet.")
    declared = {metric.name: metric for run in runs for metric in run.measured}
    named = [
        (run, f"{run.name} ({run.splits_text})" if comparability_note(runs) else run.name) for run in runs
    ]

    def drawn(metric: m.MetricDeclaration) -> Markup:
        lines = [(label, *run.series(metric.name)) for run, label in named]
        return figures.curves(
            f"all/{metric.name}", f"{metric.name} by round", lines, x_label="round", metric=metric
        )

    primary = common_primary(runs)
    quantities: list[tuple[str, str, Callable[[RoundRecord], float]]] = [
        ("time", f"seconds{_clock_text(runs)}", lambda line: line.duration),
        ("traffic", "MB, up and down", lambda line: (line.bytes.up + line.bytes.down) / 1e6),
    ]
    return section(
        "Learning",
        tag(
            "div",
            *(drawn(metric) for metric in declared.values()),
            *(
                figures.curves(
                    f"all/{what}",
                    f"{primary.name} by {what}",
                    [(label, *figures.metric_against(run, quantity, primary.name)) for run, label in named],
                    x_label=x_label,
                    metric=primary,
                )
                for what, x_label, quantity in quantities
                if primary is not None
            ),
            class_="figures",
        ),
    )


def _differences(runs: Sequence[RunReport]) -> Markup:
    differences = settings_that_differ(runs)
    if not differences:
        return section("Settings", note="All settings are the same.")
    rows = [
        [name.replace("_", "-"), *(setting_text(name, value) for value in values)]
        for name, values in differences
    ]
    headings = ["setting", *(_legend_entry(run, index) for index, run in enumerate(runs))]
    return section("Settings that differ", table(headings, rows, caption="Settings that differ"))
