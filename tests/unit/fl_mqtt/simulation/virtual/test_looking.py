"""Looks at a served model in virtual time: when a candidate is trained, and when it takes the model's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fl_aggregator.configuration.looking import Look
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.monitoring.views.status import serving_text
from fl_aggregator.round.looking import compare
from fl_aggregator.round.phases import Failed, Finished
from fl_aggregator.round.state import Run, Score
from fl_aggregator.server import launch as launches
from fl_aggregator.server.operation import finding_of
from fl_edge.session import effects, events
from fl_edge.session.work import EvaluationScores
from fl_mqtt.simulation.virtual.jobs import JobEvent
from fl_shared.errors import UserError
from tests.support.virtual_federation import Federation, InstantJobs

EDGES = 4
TASK = "synthetic-16"
Losses = Callable[[str, bool], float]
"""The loss of a model on the holdout of an edge; whether it is the served one."""


class MeasuringJobs(InstantJobs):
    """Edges with a holdout, as many examples as the number of the edge and one more."""

    def __init__(self, losses: Losses, silent: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.served = ""
        self.loaded_at: list[float] = []
        self._losses, self._silent = losses, silent

    def result(self, client: str, job: int, now: float) -> JobEvent:
        effect = self._work[client, job].effect
        found = super().result(client, job, now)
        if isinstance(found, events.PartitionLoaded):
            self.loaded_at.append(now)
            return replace(found, holdout=0 if client in self._silent else 1 + int(client))
        if isinstance(effect, effects.Evaluate):
            loss = self._losses(client, effect.digest == self.served)
            return events.ModelEvaluated(now, job, EvaluationScores(1 + int(client), loss))
        return found


def settings(hold: float = 0.0) -> Settings:
    return Settings(
        task=TASK,
        clients=EDGES,
        rounds=3,
        target="loss=0.3",
        look=Look(served=1, hold=hold),
        deadline=60.0,
        wait=60.0,
    )


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> Path:
    run = Federation(tmp_path / "first", Settings(task=TASK, clients=EDGES, rounds=1))
    run.run()
    run.close()
    return tmp_path / "first" / "model.safetensors"


def begun(tmp_path: Path, model: Path, jobs: MeasuringJobs, hold: float = 0.0) -> Federation:
    run = Federation(tmp_path / "look", settings(hold), jobs=jobs, init=model)
    assert run.aggregator.state.model is not None
    jobs.served = run.aggregator.state.model.digest
    return run


def looked(tmp_path: Path, model: Path, jobs: MeasuringJobs) -> Run:
    run = begun(tmp_path, model, jobs)
    run.run()
    run.close()
    return run.aggregator.state


def test_a_model_that_is_good_enough_stays_and_nothing_is_trained(tmp_path: Path, model: Path) -> None:
    jobs = MeasuringJobs(lambda client, _: 0.1 * int(client))
    state = looked(tmp_path, model, jobs)
    assert isinstance(state.phase, Finished)
    assert (state.version, jobs.trained) == (0, [])
    found = finding_of(state)
    assert found.outcome == "good"
    assert found.value == pytest.approx((0.1 * 2 + 0.2 * 3 + 0.3 * 4) / 10)


def test_a_candidate_that_is_better_wins_and_ends_the_training_once_it_is_good_enough(
    tmp_path: Path, model: Path
) -> None:
    state = looked(tmp_path, model, MeasuringJobs(lambda _, served: 0.5 if served else 0.2))
    assert state.looked is not None
    assert state.looked.winner is not None
    assert (state.version, state.looked.winner.version) == (1, 1)
    assert (tmp_path / "look" / "best.safetensors").exists()
    assert finding_of(state).detail == "a candidate is better: loss 0.5000 → 0.2000 on 4 edges"


def test_a_candidate_that_is_as_good_does_not_win(tmp_path: Path, model: Path) -> None:
    state = looked(tmp_path, model, MeasuringJobs(lambda *_: 0.5))
    assert state.version == 3, "it was trained in all rounds"
    assert state.looked is not None
    assert state.looked.winner is None
    assert not (tmp_path / "look" / "best.safetensors").exists()
    assert finding_of(state).outcome == "kept"


def test_the_model_stays_if_too_few_edges_measure_it(tmp_path: Path, model: Path) -> None:
    jobs = MeasuringJobs(lambda *_: 0.5, silent=frozenset("012"))
    state = looked(tmp_path, model, jobs)
    assert isinstance(state.phase, Failed)
    assert jobs.trained == []
    found = finding_of(state)
    assert (found.outcome, found.detail) == (
        "failed",
        "1 edges have measured the served model; at least 2 are needed; the model stays",
    )


def test_edges_load_their_data_when_the_look_begins(tmp_path: Path, model: Path) -> None:
    jobs = MeasuringJobs(lambda *_: 0.1)
    run = begun(tmp_path, model, jobs, hold=1000.0)
    texts = set()
    while not jobs.loaded_at:
        if run.world.now < 1000:
            texts.add((serving_text(run.aggregator.state, run.world.now) or "").split(" at ")[0])
        assert run.world.step()
    assert texts == {"serves version 1; next look"}
    run.run()
    run.close()
    assert min(jobs.loaded_at) >= 1000.0
    assert len(jobs.loaded_at) == EDGES
    assert finding_of(run.aggregator.state).outcome == "good"


def test_a_look_is_not_resumed(tmp_path: Path, model: Path) -> None:
    begun(tmp_path, model, MeasuringJobs(lambda *_: 0.1)).close()
    with pytest.raises(UserError, match="is a look at a served model, which cannot be resumed"):
        launches.resume(tmp_path / "look", simulated=False)


def test_only_edges_that_have_measured_both_count() -> None:
    served = {"a": Score(examples=10, value=0.5), "b": Score(examples=30, value=0.9)}
    candidate = {"a": Score(examples=99, value=0.6), "c": Score(examples=10, value=0.1)}
    found = compare(served, candidate, 1)
    assert found is not None
    assert (found.before, found.after, found.edges, found.examples) == (0.5, 0.6, 1, 10)
    assert compare(served, candidate, 2) is None
