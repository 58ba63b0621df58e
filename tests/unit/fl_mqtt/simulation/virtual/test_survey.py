"""A survey of 20 edges has the statistics of all their data, plain and masked, and keeps to its smallest group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.configuration.survey import Survey
from fl_aggregator.round.events import UpdateStored
from fl_aggregator.round.phases import Failed, Finished
from fl_aggregator.tools.survey.reading import read_survey
from fl_aggregator.tools.survey.result import Result
from fl_edge.session.survey import SurveyPolicy
from tests.support.survey_federation import SurveyFederation, SurveyJobs, people, settings

EDGES = 20
WITHIN = 1e-6
"""How far a statistic may be from the pooled one, relative to it."""


def federation(
    tmp_path: Path, asked: Settings, policies: Mapping[str, SurveyPolicy] | None = None, run: str = "run"
) -> SurveyFederation:
    return SurveyFederation(
        tmp_path / run, asked, jobs=SurveyJobs(tmp_path / "data"), policies=policies or {}
    )


def finished(run: SurveyFederation) -> SurveyFederation:
    run.run()
    run.close()
    assert isinstance(run.aggregator.state.phase, Finished), run.aggregator.state.phase
    return run


def result_of(run: SurveyFederation) -> Result:
    found = read_survey(run.directory)
    assert isinstance(found, Result)
    return found


def test_it_has_the_pooled_statistics(tmp_path: Path) -> None:
    rows = people(tmp_path / "data", EDGES)
    run = finished(federation(tmp_path, settings(EDGES, survey=Survey(ranges={"age": (0.0, 60.0)}, cells=1))))
    found = result_of(run)
    assert (found.edges, found.examples) == (EDGES, len(rows))
    states = [row[3] for row in rows]
    assert found.labels is not None
    assert found.labels.shown == {state: states.count(state) for state in ("ill", "rare", "well")}
    groups = found.categories["group"].cells
    assert groups is not None
    assert groups.shown == {name: [row[2] for row in rows].count(name) for name in ("a", "b")}
    ages = np.array([row[0] for row in rows])
    there = ages[~np.isnan(ages)]
    kept = {"age": np.clip(there, 0, 60), "income": np.array([row[1] for row in rows])}
    for name, values in kept.items():
        column = found.numbers[name]
        assert (column.values, column.missing) == (len(values), len(rows) - len(values))
        assert column.mean == pytest.approx(values.mean(), rel=WITHIN)
        assert column.deviation == pytest.approx(values.std(), rel=WITHIN)
        for one in column.quantiles:
            exact = np.quantile(values, one.fraction, method="inverted_cdf")
            assert abs(one.value - exact) <= one.error * (1 + 1e-9)
        assert sum(bar.values for bar in column.histogram) == len(values)
    assert found.numbers["age"].moved == int((there != kept["age"]).sum())


def test_masked_sums_have_the_bits_of_plain_ones(tmp_path: Path) -> None:
    people(tmp_path / "data", EDGES)
    plain, masked = (
        finished(federation(tmp_path, settings(EDGES, masked=masks), run=f"run-{masks}")).sums_vector()
        for masks in (False, True)
    )
    assert plain.any()
    assert np.array_equal(plain, masked)


def test_the_published_model_has_no_sums(tmp_path: Path) -> None:
    people(tmp_path / "data", 5)
    run = finished(federation(tmp_path, settings(5)))
    assert run.sums().edges == 5
    assert not run.newest_weights().any()


def test_a_group_that_is_too_small_has_no_sum(tmp_path: Path) -> None:
    people(tmp_path / "data", 5)
    run = federation(tmp_path, settings(5), policies={"2": SurveyPolicy("no")})
    run.run()
    assert isinstance(run.aggregator.state.phase, Failed)
    unable = run.aggregator.state.roster.clients["2"].unable
    assert unable == "this edge does not take part in surveys (--survey no)"
    assert not list(run.directory.glob("checkpoints/*.state.safetensors"))
    run.close()


@pytest.mark.parametrize("masked", [False, True])
def test_edges_that_refuse_are_in_no_sum(tmp_path: Path, masked: bool) -> None:
    rows = people(tmp_path / "data", 8)
    wants_more = {"1": SurveyPolicy(least=6), "4": SurveyPolicy("no")}
    run = finished(federation(tmp_path, settings(8, masked=masked), policies=wants_more))
    assert run.sums().edges == 6
    assert run.sums().examples < len(rows)
    assert {client for client, number in run.jobs.trained if number} == set("023567")
    unable = run.aggregator.state.roster.clients["1"].unable
    assert unable == "the survey has sums of 5 edges, expected at least 6 (--survey-least)"


def test_a_survey_that_was_killed_goes_on(tmp_path: Path) -> None:
    rows = people(tmp_path / "data", EDGES)
    run = federation(tmp_path, settings(EDGES))
    stored: list[JobDone] = []

    def seconds(done: JobDone) -> float:
        if isinstance(done.event, UpdateStored):
            stored.append(done)
        return 0.0

    run.job_seconds = seconds
    run.restart_aggregator()
    while len(stored) < EDGES // 2:
        assert run.world.step()
    run.restart_aggregator()
    assert finished(run).sums().examples == len(rows)
    assert read_survey(run.directory).edges == EDGES


def test_an_edge_tells_its_own_figures_only_if_it_may(tmp_path: Path) -> None:
    people(tmp_path / "data", 6)
    run = finished(federation(tmp_path, settings(6), policies={"3": SurveyPolicy("each")}))
    found = result_of(run)
    assert set(found.figures) == {"3"}
    figures = found.figures["3"]
    rows, mean = rows_and_mean(tmp_path, "3")
    assert figures["examples"] == rows
    assert figures["mean income"] == pytest.approx(mean, rel=1e-12)
    assert [line["metrics"].get("train_examples") for line in run.history()] == [figures["examples"]]


def rows_and_mean(tmp_path: Path, client: str) -> tuple[int, float]:
    """The number of rows of one edge, and their mean income."""
    lines = (tmp_path / "data" / client / "people.csv").read_text().splitlines()[1:]
    incomes = np.array([float(line.split(",")[1]) for line in lines])
    return len(lines), float(incomes.mean())
