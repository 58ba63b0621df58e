"""A run is warned whose versions differ widely, once, and no other: also by the curves that were measured."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.views.round_record import RoundRecord
from fl_aggregator.monitoring.views.unsteadiness import UnsteadyVersions
from tests.support.builders import ACCURACY, MAE, round_summary

ROOT = Path(__file__).parents[5]
UNSTEADY = (0.5, 0.6, 0.5, 0.6, 0.5, 0.6, 0.5)


def play(watched: UnsteadyVersions, values: Iterable[float], **changes: Any) -> None:
    for version, value in enumerate(values, 1):
        summary = {"declared": (ACCURACY,), "split": "test", "metrics": {"accuracy": value}, **changes}
        watched.log(round_summary(version, **summary))


def test_a_run_whose_versions_differ_widely_is_warned_once(caplog: pytest.LogCaptureFixture) -> None:
    play(UnsteadyVersions(Settings()), UNSTEADY * 3)
    (line,) = caplog.messages
    assert line == (
        "version 7: accuracy became worse by 0.03 or more 3 times in the last 7 evaluated versions: the edges' data "
        "differ widely, their steps are too long, or some send bad updates (--similarity 5 shows who is unlike the "
        "others); in a new run, try --serve average:5, --logit-adjustment 1 (classifiers) or a smaller --lr"
    )


def test_a_fall_of_three_percent_counts(caplog: pytest.LogCaptureFixture) -> None:
    play(UnsteadyVersions(Settings()), (0.95, 0.92) * 4)  # 0.95 - 0.92 is less than 0.03 in floating point
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("before", [3, 7])
def test_a_run_that_is_resumed_is_warned_once_in_all(before: int, caplog: pytest.LogCaptureFixture) -> None:
    records = []
    for version, value in enumerate(UNSTEADY[:before], 1):
        summary = round_summary(version, declared=(ACCURACY,), split="test", metrics={"accuracy": value})
        records.append(RoundRecord.of(summary, 0, 0))
    watched = UnsteadyVersions(Settings())
    watched.restore(records)
    assert caplog.messages == []
    for version, value in enumerate(UNSTEADY[before:] + UNSTEADY, before + 1):
        summary = round_summary(version, declared=(ACCURACY,), split="test", metrics={"accuracy": value})
        watched.log(summary)
    assert len(caplog.messages) == (before == 3)


def test_a_metric_may_be_better_when_lower(caplog: pytest.LogCaptureFixture) -> None:
    error = ACCURACY.model_copy(update={"name": "error", "higher_is_better": False})
    watched = UnsteadyVersions(Settings(logit_adjustment=1.0))
    for version, value in enumerate(UNSTEADY, 1):
        watched.log(round_summary(version, declared=(error,), split="test", metrics={"error": value}))
    (line,) = caplog.messages
    assert line.startswith("version 6: error became worse")
    assert line.endswith("try --serve average:5 or a smaller --lr")


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"serve": "average:3"}, {}),
        ({}, {"split": "holdout"}),
        ({}, {"declared": (MAE,), "metrics": {"mae": 1.0}}),
        ({}, {"declared": ()}),
        ({}, {"model": None, "outcome": "abandoned"}),
    ],
)
def test_who_is_not_warned(
    settings: dict[str, Any], changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    play(UnsteadyVersions(Settings(**settings)), UNSTEADY, **changes)
    assert caplog.messages == []


def test_a_summary_that_is_published_again_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    watched = UnsteadyVersions(Settings())
    for _ in range(5):
        play(watched, (0.6, 0.5))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("cell", "warned"),
    [
        ("A/shards/fedavg", True), ("A/shards/fedprox", True), ("A/dirichlet:0.1/fedavg", True),
        ("A/iid/fedavg", False), ("A/iid/fednova", False), ("A/shards/fedavg + logit adjustment", False),
        ("B/fedadam/lr 0.01", False),
    ],
)  # fmt: skip
def test_the_runs_that_were_measured(cell: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    lines = map(json.loads, (ROOT / "benchmarks" / "results" / "learning.jsonl").read_text().splitlines())
    curves = [line["curve"] for line in lines if line["cell"] == cell]
    assert len(curves) == 3
    with caplog.at_level(logging.WARNING):
        for curve in curves:
            play(UnsteadyVersions(Settings()), (value for _, value in curve))
    assert len(caplog.messages) == (3 if warned else 0)
