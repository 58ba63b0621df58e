"""The page about a sweep: mean ± deviation of each setting, curves with bands, and all runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fl_aggregator.tools.report.drawing import SERIES_COLOURS, colour, draw
from fl_aggregator.tools.report.figures import HALF_SIZE, MAX_LABEL, legend, whole_numbers
from fl_aggregator.tools.report.markup import Child, Markup, table, tag
from fl_aggregator.tools.report.page import document, faults
from fl_aggregator.tools.report.sections import MAX_REPORT_ROWS, section
from fl_aggregator.tools.report.settings import setting_text, settings_of
from fl_aggregator.tools.report.sweep import Setting, Sweep, results, seconds_of, spread_text
from fl_shared.protocol import messages as m
from fl_shared.system.text import duration_text, quantity_text, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CURVES: Final = 16
"""Settings that are drawn; of more, those with the best mean. The tables have all."""


def sweep_page(sweep: Sweep) -> str:
    """The page about a sweep. Raises ``UserError`` without matplotlib."""
    runs = sweep.runs
    finished = sum(run.finished for run in runs)
    task = next((run.settings.get("task") for run in sweep.reports if run.settings), "unknown")
    state = f"settings: {len(sweep.settings)} · runs: {len(runs)} · finished: {finished}"
    header = tag(
        "header",
        tag("h1", f"{sweep.name}: a sweep"),
        tag("p", f"task {task} · {state}", class_="sub"),
    )
    body = [
        header,
        tag("main", faults(sweep.reports), _results(sweep), _curves(sweep), _runs(sweep), _common(sweep)),
    ]
    return document(f"{sweep.name}: a sweep", body)


def _results(sweep: Sweep) -> Markup:
    headings, rows = results(sweep)
    note = (
        "Mean ± standard deviation (n − 1) of the finished runs' last values; best: of the best versions. "
        "The edges' values are on their own holdouts."
    )
    return section("Results", table(headings, rows, caption="Settings"), note=note)


def _best_settings(sweep: Sweep) -> list[Setting]:
    metric = sweep.primary

    def mean(setting: Setting) -> float:
        values = setting.values(lambda run: run.last(metric.name))
        return sum(values) / len(values) if values else float("-inf" if metric.higher_is_better else "inf")

    measured = [setting for setting in sweep.settings if setting.finished]
    best = sorted(measured, key=mean, reverse=metric.higher_is_better)[:MAX_CURVES]
    return [setting for setting in measured if setting in best]


def _curves(sweep: Sweep) -> Markup:
    settings, metric = _best_settings(sweep), sweep.primary
    if not settings:
        return section("Learning", note="No run has finished yet.")
    wanted: list[tuple[str, str, m.MetricDeclaration]] = [
        (metric.name, metric.name, metric),
        *([] if metric == m.LOSS else [("loss", "loss", m.LOSS)]),
        ("edges_worst", f"{metric.name}: worst edge", metric),
    ]
    drawn = [
        bands(f"{sweep.name}/{key}", title, settings, key, unit.unit)
        for key, title, unit in wanted
        if any(setting.curve(key)[0] for setting in settings)
    ]
    note = (
        "The mean of the finished runs in each round; the band is one standard deviation wide on each side."
    )
    if len(settings) < len(sweep.settings):
        note += f" {len(settings)} of {len(sweep.settings)} settings: those with the best means."
    rows = [
        [setting.name, number, *(_at(setting, key, number, unit.unit) for key, _, unit in wanted)]
        for setting in settings
        for number in setting.curve(metric.name)[0]
    ]
    as_table = table(
        ["setting", "round", *(title for _, title, _ in wanted)],
        rows[:MAX_REPORT_ROWS],
        caption="Means by round",
    )
    return section(
        "Learning",
        tag("div", *drawn, class_="figures"),
        tag("details", tag("summary", "As a table"), as_table),
        note=note,
    )


def _at(setting: Setting, metric: str, number: int, unit: str) -> str:
    values = [
        value
        for run in setting.finished
        for measured, value in zip(*run.series(metric), strict=True)
        if measured == number
    ]
    return spread_text(values, unit)


def bands(name: str, title: str, settings: Sequence[Setting], metric: str, unit: str) -> Markup:
    """The mean of a metric by round as a curve for each setting, with a band of one deviation on each side."""
    lines = [(setting.name, *setting.curve(metric)) for setting in settings]

    def paint(axes: Axes) -> None:
        for index, (label, rounds, means, deviations) in enumerate(lines):
            style = "--" if index >= SERIES_COLOURS else "-"
            axes.plot(rounds, means, style, color=colour(index), label=shortened(label, MAX_LABEL))
            low = [mean - deviation for mean, deviation in zip(means, deviations, strict=True)]
            high = [mean + deviation for mean, deviation in zip(means, deviations, strict=True)]
            axes.fill_between(rounds, low, high, color=colour(index), alpha=0.18, linewidth=0)
        axes.set_title(title)
        axes.set_xlabel("round")
        axes.margins(x=0.02)
        whole_numbers(axes)
        if unit not in ("", "%"):
            axes.set_ylabel(unit)
        legend(axes, len(lines))

    ends = "; ".join(
        f"{label}: {quantity_text(means[-1], unit)} ± {quantity_text(deviations[-1], unit)}"
        for label, _, means, deviations in lines
        if means
    )
    return draw(
        name, HALF_SIZE, f"{title} by round, mean and deviation over the seeds. At the end {ends}", paint
    )


def _runs(sweep: Sweep) -> Markup:
    metric = sweep.primary
    rows = [
        [
            run.swept.name,
            run.swept.setting_text or "–",
            run.swept.seed,
            run.state_text,
            *(
                ("–",) * 3
                if run.report is None
                else (
                    quantity_text(run.report.last(metric.name), metric.unit),
                    quantity_text(run.report.last("edges_worst"), metric.unit),
                    duration_text(seconds_of(run.report)),
                )
            ),
        ]
        for run in sweep.runs
    ]
    headings = ["run", "setting", "seed", "state", metric.name, "worst edge", "time"]
    note = "Each run is a subdirectory of the sweep's, of which there can be a report of its own."
    return section(
        "Runs", table(headings, rows, caption="Runs", text_columns=frozenset({0, 1, 3})), note=note, long=True
    )


def _common(sweep: Sweep) -> Markup | None:
    """The settings that all runs have in common; null before a run has begun."""
    if not sweep.reports:
        return None
    found = [settings_of(run) for run in sweep.reports]
    common = {name: value for name, value in found[0].items() if all(one.get(name) == value for one in found)}
    entries: list[Child] = [
        tag("div", tag("dt", name.replace("_", "-")), tag("dd", setting_text(name, value)))
        for name, value in common.items()
    ]
    return section("Settings of all runs", tag("dl", *entries, class_="settings"))
