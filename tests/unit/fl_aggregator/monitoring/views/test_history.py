"""What lies at the broker of the rounds so far: all of a short run, an even part of a long one (protocol, 8.9)."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from fl_aggregator.monitoring.views.history import MAX_RECENT_ROUNDS, RoundHistory
from fl_aggregator.monitoring.views.history_row import HistoryRow, columns_of, rows_of, summary_fields
from fl_aggregator.monitoring.views.round_record import RoundRecord, read_records
from fl_aggregator.round.state import Summary
from fl_shared.protocol import codec
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.protocol.limits import MAX_NAMES
from tests.support.builders import round_summary


def record(number: int, **metrics: float) -> RoundRecord:
    return RoundRecord.of(summary(number, **metrics), 17_243_200, 34_486_400)


def summary(number: int, **metrics: float) -> Summary:
    seconds = {"selecting": 0.25, "collecting": 1.0, "evaluating": 99.0}
    return round_summary(number, metrics=metrics, seconds=seconds)


def test_a_round_is_a_row_and_again_when_it_was_evaluated() -> None:
    curves = RoundHistory()
    for one in (
        summary(1, train_loss=0.5),
        summary(2),
        summary(1, train_loss=0.5, accuracy=0.123456789, loss=1.5),
    ):
        curves.add(RoundRecord.of(one, 100, 200))
    columns = columns_of(curves.rows())
    assert columns.round == (1, 2)
    assert columns.metrics["accuracy"] == (0.123457, None)
    assert columns.metrics["train_loss"] == (0.5, None)
    assert columns.seconds == (1.25, 1.25), "without the evaluation"
    assert (columns.participants, columns.cohort) == ((1, 1), (2, 2))
    first = curves.recent()[1]
    assert first == RoundRecord.of(summary(1, train_loss=0.5, accuracy=0.123456789, loss=1.5), 100, 200)
    assert (first.reason, first.missing) == (None, {"1": "offline: for 0.5 s"})
    assert curves.round_count == 2
    assert rows_of(columns) == curves.rows()


def test_the_history_file_gives_the_same_records() -> None:
    refused = {"7": {"late": 2}}
    written = [
        RoundRecord.of(summary(1, accuracy=0.5, train_loss=0.1), 10, 20, refused),
        RoundRecord.of(summary(3), 30, 40),
    ]
    lines = [written[0].history_fields(), {"round": 2, "metrics": {}}, written[1].history_fields()]
    assert list(read_records(json.loads(json.dumps(line)) for line in lines)) == written


def test_a_result_tells_what_the_record_says() -> None:
    """But for what it leaves out: who was selected and surplus, the time of each phase, the matrix, the refused."""
    record = RoundRecord.of(summary(1, accuracy=0.5), 10, 20)
    result = record.result_message({"run": "r", "incarnation": 1, "seq": 1})
    assert HistoryRow.of(RoundRecord.of_result(result)) == HistoryRow.of(record)
    assert summary_fields(RoundRecord.of_result(result)) == summary_fields(record)


@pytest.mark.parametrize("rounds", [1, 499, 500, 501, 1000, 2_345])
def test_thinned_evenly_with_the_first_and_the_last(rounds: int) -> None:
    curves = RoundHistory()
    for number in range(1, rounds + 1):
        curves.add(record(number))
        curves.add(record(number, accuracy=number / rounds))
    columns = columns_of(curves.rows())
    assert columns.round[0] == 1
    assert columns.round[-1] == rounds
    assert min(rounds, 250) <= len(columns.round) <= m.MAX_HISTORY
    steps = {after - before for before, after in zip(columns.round, columns.round[1:-1], strict=False)}
    assert len(steps) <= 1, "evenly"
    assert columns.metrics["accuracy"][-1] == 1.0
    assert list(curves.recent()) == list(range(max(1, rounds - MAX_RECENT_ROUNDS + 1), rounds + 1))
    assert curves.round_count == rounds
    history = m.History(
        run="r",
        incarnation=1,
        seq=1,
        task="digits",
        rounds=rounds,
        started="2026-11-24T12:00:00Z",
        columns=columns,
    )
    payload = codec.encode(history)
    assert len(payload) <= MAX_NAMES
    assert codec.decode(t.HistoryTopic(), payload) == history


def test_the_widest_numbers_fit() -> None:
    names = [f"{number:02}{'µ' * 55}" for number in range(m.MAX_METRICS)]
    rows = [
        HistoryRow(
            number,
            10**7,
            dict.fromkeys(names, -1.23456e-300),
            "holdout",
            1234567.891,
            10**6,
            10**6,
            10**12,
            10**12,
        )
        for number in range(m.MAX_HISTORY)
    ]
    columns = columns_of(rows)
    assert (columns.round[0], columns.round[-1]) == (0, m.MAX_HISTORY - 1)
    assert len(columns.round) < m.MAX_HISTORY
    history = m.History(
        run="r" * 64,
        incarnation=1,
        seq=1,
        task="t" * 64,
        rounds=1,
        started="2026-11-24T12:00:00Z",
        columns=columns,
    )
    assert len(codec.encode(history)) <= MAX_NAMES


def test_arrays_of_unequal_length_and_too_long_ones_are_no_history() -> None:
    with pytest.raises(ValidationError, match="equally long"):
        m.HistoryColumns(round=(1,))
    with pytest.raises(ValidationError, match="expected at most 500"):
        m.HistoryColumns(
            round=(1,) * 501, version=(1,) * 501, split=(None,) * 501, seconds=(1.0,) * 501, participants=(1,) * 501,
            cohort=(1,) * 501, bytes_up=(1,) * 501, bytes_down=(1,) * 501,
        )  # fmt: skip
    with pytest.raises(ValidationError, match="equally long"):
        m.HistoryColumns(metrics={"loss": (0.5,)})
