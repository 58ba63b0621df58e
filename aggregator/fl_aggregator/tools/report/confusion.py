"""The section about which classes are taken for which."""

from __future__ import annotations

from typing import Final

from fl_aggregator.monitoring.views.round_record import ConfusionMatrix
from fl_aggregator.tools.report.markup import Markup, table, tag
from fl_aggregator.tools.report.reading import RunReport
from fl_aggregator.tools.report.sections import section

MAX_MATRIX: Final = 25
"""Classes up to which the whole confusion matrix is shown; of a larger one, the most frequent confusions."""


def confusion(run: RunReport) -> Markup | None:
    """The newest confusion matrix, or its most frequent confusions; null if there is none."""
    newest = run.confusion
    if newest is None:
        return None
    record, matrix = newest
    note = f"Version {record.version} on the test split: true classes by row, predicted classes by column."
    matrix_table = _matrix(matrix) if len(matrix.labels) <= MAX_MATRIX else _confusion_pairs(matrix)
    return section("Confusion", matrix_table, note=note)


def _matrix(matrix: ConfusionMatrix) -> Markup:
    rows = []
    for index, (label, counts) in enumerate(zip(matrix.labels, matrix.counts, strict=True)):
        row_total = sum(counts) or 1
        cells = [
            tag("td", count or None, style=_shade(count / row_total, right=column == index),
                title=f"{label} predicted as {matrix.labels[column]}: {count}")
            for column, count in enumerate(counts)
        ]  # fmt: skip
        rows.append(
            tag("tr", tag("th", label, scope="row"), *cells, tag("td", f"{counts[index] / row_total:.0%}"))
        )
    heading_row = tag("tr", tag("td"), *(tag("th", label, scope="col") for label in matrix.labels),
               tag("th", "correct", scope="col"))  # fmt: skip
    return tag("div", tag("table", tag("caption", "Confusion matrix"), tag("thead", heading_row), tag("tbody", *rows)),
               class_="scroll matrix", tabindex="0", role="region", aria_label="Confusion matrix")  # fmt: skip


def _shade(fraction: float, *, right: bool) -> str | None:
    if not fraction:
        return None
    hue = "--series-1" if right else "--series-2"
    strength = 12 + 58 * fraction if right else 14 + 70 * min(1.0, 2 * fraction)
    return f"background: color-mix(in srgb, var({hue}) {strength:.0f}%, var(--surface))"


def _confusion_pairs(matrix: ConfusionMatrix, limit: int = 30) -> Markup:
    pairs = [
        (count, label, matrix.labels[column])
        for index, (label, counts) in enumerate(zip(matrix.labels, matrix.counts, strict=True))
        for column, count in enumerate(counts)
        if column != index and count
    ]
    pairs.sort(key=lambda pair: -pair[0])
    rows = [(true, predicted, count) for count, true, predicted in pairs[:limit]]
    return table(["class", "predicted as", "examples"], rows, caption="The most frequent confusions",
                 text_columns=frozenset({0, 1}))  # fmt: skip
