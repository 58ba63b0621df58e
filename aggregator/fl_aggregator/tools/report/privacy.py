"""The section about what a private run has told about an edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fl_aggregator.monitoring.views.privacy import (
    INSECURE,
    NOT_COVERED,
    SEES,
    TRUST,
    epsilon_text,
    guess_text,
    noise_line,
    often_text,
    spent_text,
    survey_noise_line,
)
from fl_aggregator.privacy.plan import PrivacyPlan
from fl_aggregator.storage.checkpoint import read_safetensors
from fl_aggregator.tools.report.drawing import MUTED_COLOUR, colour, draw
from fl_aggregator.tools.report.figures import HALF_SIZE, MAX_MARKED_POINTS, whole_numbers
from fl_aggregator.tools.report.markup import Child, Markup, meter, table, tag
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.sections import MAX_REPORT_ROWS, section
from fl_shared.errors import UserError
from fl_shared.protocol import messages as m

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIRECTORY_NOTE: Final = (
    "The run directory is secret: its journal and its spool say who took part, and may hold updates without noise. "
    "Whoever has it is not covered by the promise."
)


def privacy(run: RunReport) -> Markup | None:
    """What the models tell about an edge, of which budget, and how long the noise is; null without ``--dp``."""
    plan = None if run.parsed_settings is None else run.parsed_settings.privacy
    spent = next((record.privacy for record in reversed(run.rounds) if record.privacy is not None), None)
    if plan is None or spent is None:
        return None
    return section(
        "What the models tell about one edge",
        tag("p", tag("b", f"{INSECURE.capitalize()}.", class_="bad")) if spent.insecure else None,
        _guess(spent),
        _bar(spent),
        tag("p", _spent(spent, plan)),
        _noise(run, plan),
        _curve(run, spent.budget),
        _table(run),
        note=DIRECTORY_NOTE,
    )


def _guess(spent: m.PrivacySpent) -> Markup:
    return tag(
        "p",
        f"Whoever {SEES[spent.against]} can guess whether one edge's data was used ",
        tag("b", f"{guess_text(spent.advantage)}."),
    )


def _spent(spent: m.PrivacySpent, plan: PrivacyPlan) -> str:
    trust, often = TRUST[spent.mechanism], often_text(plan, "versions")
    return (
        f"{spent_text(spent)}. Neighbouring runs differ in what one edge contributes, which is replaced by zeros. "
        f"{trust[0].upper()}{trust[1:]}; {NOT_COVERED}. "
        f"{often[0].upper()}{often[1:]}."
    )


def _bar(spent: m.PrivacySpent) -> Markup | None:
    """ε against its budget, with both as text; null without a budget."""
    if not spent.budget:
        return None
    share = min(1.0, spent.epsilon / spent.budget)
    return meter(share, f"{epsilon_text(spent)}: {100 * share:.0f} % of the budget")


def _noise(run: RunReport, plan: PrivacyPlan) -> Child:
    """How much the noise is beside the updates; null if the newest model cannot be read."""
    try:
        manifest = read_safetensors(run.path / "model.safetensors").manifest
    except UserError:
        return None
    settings = run.parsed_settings
    assert settings is not None
    text = (
        noise_line(plan, manifest.values, settings.per_round)
        if settings.survey is None
        else survey_noise_line(plan, settings.survey, manifest, settings.per_round)
    )
    return tag("p", f"{text[0].upper()}{text[1:]}.")


def _points(run: RunReport) -> list[tuple[int, m.PrivacySpent]]:
    return [
        (record.round, record.privacy)
        for record in run.rounds
        if record.privacy is not None and record.version is not None
    ]


def _curve(run: RunReport, budget: float | None) -> Markup:
    points = _points(run)
    x, y = [number for number, _ in points], [spent.epsilon for _, spent in points]

    def paint(axes: Axes) -> None:
        marker = "o" if len(x) <= MAX_MARKED_POINTS else None
        axes.plot(x, y, drawstyle="steps-post", color=colour(0), marker=marker, markersize=4.5)
        if budget is not None:
            axes.axhline(budget, color=MUTED_COLOUR, linestyle="--", linewidth=1.2)
            axes.annotate(
                f"budget {budget:.3g}", (0, budget), xycoords=("axes fraction", "data"), xytext=(4, -4),
                textcoords="offset points", ha="left", va="top", color=MUTED_COLOUR,
            )  # fmt: skip
        axes.set_title("ε by round")
        axes.set_xlabel("round")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.02)
        whole_numbers(axes)

    range_text = f"from {y[0]:.3g} to {y[-1]:.3g}" if y else "no version yet"
    of = "" if budget is None else f", budget {budget:.3g}"
    return draw(f"{run.name}/epsilon", HALF_SIZE, f"ε by round: {range_text}{of}", paint)


def _table(run: RunReport) -> Markup:
    points = _points(run)[-MAX_REPORT_ROWS:]
    rows = [
        [number, f"{spent.epsilon:.4g}", f"{spent.clip:.4g}", f"{spent.noise:.4g}", spent.spent_by or "–"]
        for number, spent in points
    ]
    headings = ["round", "ε", "clip", "noise", "most of edge"]
    return tag(
        "details",
        tag("summary", f"{len(rows)} versions as a table"),
        table(headings, rows, caption="ε, clip and noise by round"),
    )
