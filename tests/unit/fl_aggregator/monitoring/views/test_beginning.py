"""What a run says before its first round."""

from __future__ import annotations

import logging

import pytest

from fl_aggregator.aggregation.strategies.registry import resolved
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.views.beginning import log_beginning, log_fresh_state, log_promise
from fl_aggregator.storage.run_directory import FleetRecord, RunRecord, VirtualTimeRecord, new_record

PRIVATE = {"dp": "central", "dp_noise": 1.0, "dp_clip": "1", "dp_delta": 0.001, "holdout": 0.0}
UNSEALED = (
    "updates are not sealed: who runs the broker, or listens to it, reads them without noise "
    "(kits and --seal are against that)"
)


def private_run() -> RunRecord:
    return new_record(resolved(Settings.model_validate(PRIVATE)))


def test_who_listens_to_unsealed_updates_is_named_where_there_is_a_broker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = private_run()
    devices = VirtualTimeRecord(heterogeneity="lab", sha256="")
    virtual = record.model_copy(update={"fleet": FleetRecord(virtual=devices)})
    said = []
    for one in (record, record.model_copy(update={"certified": True}), virtual):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            log_beginning(one)
        said.append((caplog.messages[0], UNSEALED in caplog.messages))
    assert said == [
        (f"run {record.run} at , prefix fl", True),
        (f"run {record.run} at , prefix fl", False),
        (f"run {record.run} in virtual time, devices: lab", False),
    ]


@pytest.mark.parametrize(("delta", "warns"), [(0.001, False), (0.0011, True)])
def test_a_delta_that_promises_next_to_nothing_is_warned_of(
    delta: float, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    private = {
        "clients": 100,
        "dp": "central",
        "dp_noise": 1.0,
        "dp_clip": "1",
        "dp_delta": delta,
        "holdout": 0.0,
    }
    with caplog.at_level(logging.WARNING):
        log_promise(resolved(Settings.model_validate(private)))
    expected = (
        "δ = 0.0011 is large for 100 edges: nothing is promised of an edge with this probability; expected --dp-delta "
        "of at most 0.001, a tenth of 1 ÷ --clients"
    )
    assert caplog.messages == ([expected] if warns else [])


def test_what_a_run_from_initial_weights_begins_without_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_fresh_state({})
        assert caplog.messages == []
        log_fresh_state({"second": 0.0, "first": 0.0})
    assert caplog.messages == [
        "--init takes weights alone: what the strategy keeps begins anew (first, second)"
    ]
