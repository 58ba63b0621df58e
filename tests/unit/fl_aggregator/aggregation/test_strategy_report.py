"""What a strategy says of a version: how many updates were clipped, whose were chosen, how long the change was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from fl_aggregator.aggregation.combining import Combiner, first_state
from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.strategies.optimizers import Sgd
from fl_aggregator.aggregation.strategies.parts import ClosedRound, Strategy
from fl_aggregator.aggregation.strategies.sums import Mean
from fl_aggregator.aggregation.validation import CheckedSection
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.events import ModelCreated, StrategyReport
from fl_aggregator.storage.journal import event_fields
from fl_shared.tensors.manifest import magnitude, manifest_of
from tests.support.builders import update_metadata

VALUES = 50
MANIFEST = manifest_of({"a": np.zeros(40, "<f4"), "b": np.zeros(10, "<f4")}, ["b"])
PARAMETERS = slice(0, 40)
ROWS = np.random.default_rng(1).normal(0.1, 0.1, (7, VALUES)).astype(np.float32)
ROWS[2] *= -20  # unlike the others
EXAMPLES = np.arange(10, 80, 10)


def said(parts: Strategy | None = None, **settings: Any) -> StrategyReport:
    chosen = Settings(**{"clients": 7, "per_round": 7, "quorum": 7, **settings})
    strategy = parts or registry.load(chosen)
    combiner = Combiner(strategy, MANIFEST, chosen)
    for _ in range(2):  # the second time, with the memory of the first
        combiner.clear()
        for k, row in enumerate(ROWS):
            update = update_metadata(client=str(k), examples=int(EXAMPLES[k]), before={"loss": 1.0})
            combiner.add(update, row, magnitude(row), {"control": CheckedSection(row, magnitude(row))})
        base, state = np.zeros(VALUES, np.float32), first_state(strategy, VALUES)
        combiner.next_model(1, base, state, lambda client: ROWS[int(client)], (0, int(EXAMPLES.sum())))
    assert combiner.report is not None
    return combiner.report


def length(change: Any) -> Any:
    return pytest.approx(np.linalg.norm(change[PARAMETERS]), rel=1e-5)


MEAN = EXAMPLES @ ROWS.astype(np.float64) / EXAMPLES.sum()


def test_the_length_of_the_change() -> None:
    assert said() == StrategyReport({"change_norm": length(MEAN)})
    assert said(strategy="fedadam").numbers == {"change_norm": length(MEAN)}, "before the optimizer's step"
    assert said(strategy="median") == StrategyReport({"change_norm": length(np.median(ROWS, axis=0))})


def test_how_many_were_clipped() -> None:
    lengths = np.linalg.norm(ROWS[:, PARAMETERS], axis=1)
    found = said(transform=("clip:norm=0.9",)).numbers
    assert found["clipped"] == (lengths > 0.9).sum()
    assert 1 <= found["clipped"] < 7


@pytest.mark.parametrize("strategy", ["krum:bad=1", "multi-krum:bad=1", "bulyan:bad=1"])
def test_who_was_chosen(strategy: str) -> None:
    found = said(strategy=strategy)
    assert len(found.chosen) == {"krum": 1, "multi-krum": 6, "bulyan": 5}[strategy.partition(":")[0]]
    assert "2" not in found.chosen
    assert list(found.chosen) == sorted(found.chosen)
    assert said(strategy="geometric-median").chosen == (), "all are in it"


def test_the_rate_of_fedexp_and_the_length_of_scaffolds_control() -> None:
    squares = (ROWS[:, PARAMETERS].astype(np.float64) ** 2).sum()
    mean = ROWS.astype(np.float64).mean(axis=0)
    rate = squares / (14 * (np.linalg.norm(mean[PARAMETERS]) ** 2 + 1e-3))
    assert rate > 1
    assert said(strategy="fedexp").numbers == {"change_norm": length(mean), "lr": pytest.approx(rate)}
    assert said(strategy="scaffold").numbers == {"change_norm": length(MEAN), "control_norm": length(MEAN)}


@dataclass(frozen=True)
class Talkative(Sgd):
    def report(self, closed: ClosedRound) -> Mapping[str, float]:
        return {"version": closed.version, "nothing": float("nan")}


def test_somebodys_optimizer_may_say_numbers_that_are_finite() -> None:
    assert said(Strategy(Mean(), Talkative())).numbers == {"change_norm": length(MEAN), "version": 1.0}


def test_a_journal_of_an_earlier_version_has_none() -> None:
    event = ModelCreated(now=1.0, round=1, digest="d", manifest="m", strategy=said(strategy="krum:bad=1"))
    fields = event_fields(event)
    del fields["event"]
    assert TypeAdapter(ModelCreated).validate_python(json.loads(json.dumps(fields))) == event
    del fields["strategy"]
    assert TypeAdapter(ModelCreated).validate_python(fields).strategy is None
