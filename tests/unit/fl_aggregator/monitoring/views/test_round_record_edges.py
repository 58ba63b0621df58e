"""What a round's record tells about each edge, here and over the wire."""

from __future__ import annotations

from typing import Any

import pytest

from fl_aggregator.monitoring.terminal.text import round_line
from fl_aggregator.monitoring.views.history_row import summary_fields
from fl_aggregator.monitoring.views.round_record import RoundRecord, read_records
from fl_shared.protocol import messages as m
from fl_shared.system.text import quantity_text
from tests.support import builders

STATISTICS = {"edges_mean": 0.6, "edges_p10": 0.45, "edges_worst": 0.4}


def record(declared: m.MetricDeclaration, **edges: float) -> RoundRecord:
    summary = builders.round_summary(
        1, metrics=STATISTICS, declared=(declared,), edges=edges, edges_version=0
    )
    return RoundRecord.of(summary, 10, 20)


@pytest.mark.parametrize(
    ("declared", "worst"),
    [(builders.ACCURACY, {"b": 0.4, "a": 0.5, "d": 0.5}), (builders.MAE, {"c": 0.9, "a": 0.5, "d": 0.5})],
)
def test_the_worst_three_are_named_and_travel(declared: m.MetricDeclaration, worst: dict[str, float]) -> None:
    made = record(declared, d=0.5, a=0.5, c=0.9, b=0.4)
    assert list(made.worst_edges.items()) == list(worst.items())
    result = made.result_message({"run": "r", "incarnation": 1, "seq": 1})
    assert result.worst_edges == worst
    seen = RoundRecord.of_result(result)
    assert summary_fields(seen) == summary_fields(made)
    expected: dict[str, Any] = {"mean": 0.6, "p10": 0.45, "worst": 0.4, "worst_edges": worst}
    assert summary_fields(made).items() >= expected.items()
    for one, of in ((made, " with version 0"), (seen, "")):  # a result does not say of which version they are
        assert f"; edges{of}: mean {quantity_text(0.6, declared.unit)}, worst " in round_line(one, 9)
        assert f" (edge {next(iter(worst))})" in round_line(one, 9)


def test_the_history_has_all_of_them() -> None:
    made = record(builders.ACCURACY, **{str(number): number / 1000 for number in range(1000)})
    (read,) = read_records([made.history_fields()])
    assert read == made
    assert len(read.edges) == 1000
    assert len(made.result_message({"run": "r", "incarnation": 1, "seq": 1}).worst_edges) == 3


def test_without_values_nothing_is_said() -> None:
    made = RoundRecord.of(builders.round_summary(1, metrics={"accuracy": 0.5}), 10, 20)
    assert made.over_edges == {"mean": None, "p10": None, "worst": None, "worst_edges": {}}
    assert "edges:" not in round_line(made, 9)
