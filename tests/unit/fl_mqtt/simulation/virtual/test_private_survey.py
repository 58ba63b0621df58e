"""A survey under a privacy budget: what it says of 200 edges, how wrong noise makes it, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fl_aggregator.configuration.survey import Survey
from fl_aggregator.round.phases import Finished
from fl_aggregator.tools.survey.noisy import Estimate, NoisyQuantile, NoisyResult
from fl_aggregator.tools.survey.noisy_text import noisy_lines
from fl_aggregator.tools.survey.reading import read_survey
from fl_edge.session.survey import SurveyPolicy
from fl_shared.errors import UserError
from fl_shared.privacy.gaussian_mechanism import epsilon_of, mu_of
from tests.support.survey_federation import (
    STATES,
    Row,
    SurveyFederation,
    SurveyJobs,
    people,
    people_by_edge,
    settings,
)

RANGES = {"age": (20.0, 60.0), "income": (1e6 - 10, 1e6 + 10)}
FARTHEST = 4
"""Standard errors."""


def federation(tmp_path: Path, edges: int, run: str = "run", **more: Any) -> SurveyFederation:
    asked = settings(edges, survey=Survey(ranges=RANGES), **{"dp": "central", **more})
    policies = {"3": SurveyPolicy("each")}
    return SurveyFederation(tmp_path / run, asked, jobs=SurveyJobs(tmp_path / "data"), policies=policies)


def finished(run: SurveyFederation) -> NoisyResult:
    run.run()
    run.close()
    assert isinstance(run.aggregator.state.phase, Finished), run.aggregator.state.phase
    found = read_survey(run.directory)
    assert isinstance(found, NoisyResult)
    return found


def near(estimate: Estimate | None, truth: float, at_most: float) -> None:
    assert estimate is not None
    assert 0 < estimate.error <= at_most
    assert abs(estimate.value - truth) <= FARTHEST * estimate.error


def ranks_are_near(quantiles: Sequence[NoisyQuantile], values: Iterable[tuple[float, float]]) -> None:
    """``values``: with their weights, which add up to 1."""
    places = list(values)
    for one in quantiles:
        below = math.fsum(weight for value, weight in places if value < one.low)
        up_to = math.fsum(weight for value, weight in places if value <= one.high)
        assert below - FARTHEST * one.rank_error <= one.fraction <= up_to + FARTHEST * one.rank_error


def weighted(rows: list[list[Row]], column: int) -> list[tuple[float, float]]:
    """The values that are not missing, each with the probability that one drawn from a random edge is this one."""
    return [
        (float(row[column]), 1 / len(rows) / len(own))
        for own in rows
        for row in own
        if not math.isnan(float(row[column]))
    ]


def share_of(rows: list[list[Row]], column: int, value: str) -> float:
    return sum(sum(row[column] == value for row in own) / len(own) for own in rows) / len(rows)


def test_what_it_says_is_true_but_for_the_noise_that_it_says(tmp_path: Path) -> None:
    rows = people_by_edge(tmp_path / "data", 200)
    run = federation(tmp_path, 200, dp_epsilon=8.0, dp_insecure_seed=11)
    found = finished(run)
    assert found.edges == 200
    assert found.labels is not None
    for state in STATES:
        near(found.labels[state], share_of(rows, 3, state), 0.02)
    for group in ("a", "b"):
        near(found.categories["group"].values[group], share_of(rows, 2, group), 0.02)
    near(found.categories["group"].missing, 0.0, 0.02)
    for place, name in enumerate(("age", "income")):
        column, values = found.numbers[name], weighted(rows, place)
        there = math.fsum(weight for _, weight in values)
        low, high = RANGES[name]
        kept = [(min(max(value, low), high), weight / there) for value, weight in values]
        mean = math.fsum(value * weight for value, weight in kept)
        deviation = math.sqrt(math.fsum((value - mean) ** 2 * weight for value, weight in kept))
        near(column.missing, 1 - there, 0.02)
        near(column.mean, mean, 0.03 * (high - low))
        near(column.deviation, deviation, 0.03 * (high - low))
        ranks_are_near(column.quantiles, kept)
        for bar in column.histogram:
            inside = sum(
                weight * there
                for value, weight in kept
                if bar.low <= value < bar.high or (value == bar.high == high)
            )
            near(bar.share, inside, 0.02)
    ranks_are_near(found.examples, [(float(len(own)), 1 / len(rows)) for own in rows])
    assert not hasattr(found, "figures")
    assert "train_examples" not in str(list(run.history()))


def test_it_costs_one_gaussian_release(tmp_path: Path) -> None:
    people(tmp_path / "data", 6)
    found = finished(federation(tmp_path, 6, dp_epsilon=2.0))
    spent = found.privacy
    assert spent.epsilon == pytest.approx(2.0, rel=1e-9)
    assert spent.epsilon == pytest.approx(epsilon_of(1 / spent.noise, spent.delta))
    assert (spent.releases, spent.sensitivity, spent.clip) == (1, 1.0, 1.0)
    assert spent.noise == pytest.approx(1 / mu_of(2.0, spent.delta))
    weight = 1 + 1 + 2 * 3 + 1
    assert found.share_error == pytest.approx(spent.noise * math.sqrt(weight) / 6)
    text = "\n".join(noisy_lines(found))
    assert "privacy: ε 2 of 2 at δ = 1e-05, spent by 1 version" in text
    assert "±: standard error of the noise" in text


def test_distributed_noise_is_as_large_as_the_sum_says(tmp_path: Path) -> None:
    people(tmp_path / "data", 8)
    found = finished(federation(tmp_path, 8, masked=True, dp="distributed", dp_noise=3.0))
    # Each edge adds 3² / (5 - 1) of variance, and all of it is in the sum.
    assert found.share_error == pytest.approx(3.0 * math.sqrt(8 / 4) * math.sqrt(9) / 8)
    assert found.privacy.noise == pytest.approx(3.0 * math.sqrt((8 - 1) / 4))
    assert found.masked


def test_a_survey_that_is_resumed_has_one_noise(tmp_path: Path) -> None:
    people(tmp_path / "data", 8)
    one, other = (federation(tmp_path, 8, run, dp_noise=2.0, dp_insecure_seed=5) for run in ("one", "other"))
    expected = finished(one)
    for _ in range(4):
        for _ in range(12):
            assert other.world.step()
        other.restart_aggregator()
    found = finished(other)
    assert found.model_dump(exclude={"run"}) == expected.model_dump(exclude={"run"})


def test_the_published_model_has_no_proportions(tmp_path: Path) -> None:
    people(tmp_path / "data", 8)
    run = federation(tmp_path, 8, dp_noise=2.0, dp_insecure_seed=5)
    finished(run)
    assert run.sums_vector().all()
    assert not run.newest_weights().any()


def test_few_examples_are_not_asked_for_where_noise_hides_them(tmp_path: Path) -> None:
    people(tmp_path / "data", 6)
    run = federation(tmp_path, 6, dp_noise=2.0)
    finished(run)
    with pytest.raises(UserError, match="--cells: has no meaning with --dp"):
        read_survey(run.directory, cells=3)


def test_a_column_without_a_range_has_missing_values_only(tmp_path: Path) -> None:
    people(tmp_path / "data", 6)
    asked = settings(6, survey=Survey(ranges={"age": (0.0, 99.0)}), dp="central", dp_noise=0.01)
    run = SurveyFederation(tmp_path / "run", asked, jobs=SurveyJobs(tmp_path / "data"))
    found = finished(run)
    income = found.numbers["income"]
    assert (income.mean, income.deviation, income.quantiles, income.histogram) == (None, None, (), ())
    assert abs(income.missing.value) <= FARTHEST * income.missing.error
    assert found.numbers["age"].mean is not None
    assert (
        "mean, deviation and quantiles of income: they need a public range (--range income=LOW:HIGH)"
        in "\n".join(noisy_lines(found))
    )
