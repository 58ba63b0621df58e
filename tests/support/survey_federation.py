"""A survey in virtual time: the real machines, and the real executor of surveys on tables that the edges have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.configuration.survey import Survey, survey_settings
from fl_aggregator.storage.checkpoint import read_arrays
from fl_edge.session import effects, events
from fl_edge.session.state import Identity
from fl_edge.session.survey import USUAL, SurveyPolicy
from fl_edge.training.executor import Executor, TrainedUpdate
from fl_edge.training.factory import executor_for
from fl_edge.workers.jobs import TrainJob
from fl_edge.workers.masked_result import MaskedRound
from fl_edge.workers.training_result import ResultBuffer, train_outcome
from fl_mqtt.simulation.virtual.jobs import JobEvent, Work
from fl_shared.protocol import messages as m
from fl_shared.survey.layout import Sums
from fl_shared.system.shared_memory import MemoryPool
from fl_shared.tensors.manifest import Vector
from tests.support.tables import write_csv
from tests.support.virtual_federation import Federation, InstantJobs, trained_event

COLUMNS = ("age", "income", "group", "state")
STATES = ("ill", "rare", "well")


Row = tuple[float, float, str, str]


def people(directory: Path, edges: int) -> list[Row]:
    """Writes the tables of `people_by_edge`, and returns all rows."""
    return [row for rows in people_by_edge(directory, edges) for row in rows]


def people_by_edge(directory: Path, edges: int) -> list[list[Row]]:
    """Writes a table for each edge, of 30 to 80 people, and returns their rows; NaN: missing.

    Incomes are far from 0 beside their deviation, and three people of all are in a rare state.
    """
    found = []
    for number in range(edges):
        rng = np.random.default_rng(number)
        rows: list[Row] = []
        for _ in range(int(rng.integers(30, 80))):
            age = math.nan if rng.random() < 0.1 else round(float(rng.normal(40 + number % 20, 12)), 1)
            income = 1e6 + float(rng.normal(0, 2))
            rows.append((age, income, str(rng.choice(["a", "b"])), str(rng.choice(["ill", "well"]))))
        if number < 3:
            rows[0] = (*rows[0][:3], "rare")
        texts: list[tuple[object, ...]] = [("" if math.isnan(row[0]) else row[0], *row[1:]) for row in rows]
        write_csv(directory / str(number) / "people.csv", COLUMNS, texts)
        found.append(rows)
    return found


def settings(edges: int, *, masked: bool = False, survey: Survey | None = None, **more: Any) -> Settings:
    """Those of a survey of `people`, and ``more``."""
    return survey_settings(
        Survey() if survey is None else survey,
        task="tabular",
        task_option={"target": "state", "classes": ",".join(STATES), "categorical": "group:a|b"},
        clients=edges,
        partition="own",
        deadline=60.0,
        wait=60.0,
        masked=masked,
        **more,
    )


class SurveyJobs(InstantJobs):
    """Does the jobs of edges whose data ``directory`` has, in a directory for each, without workers."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def _executor(self, client: str, task: str) -> Executor:
        return executor_for(task, self._directory / client, "cpu", light=True)

    def result(self, client: str, job: int, now: float) -> JobEvent:
        work = self._work.pop((client, job))
        match work.effect:
            case effects.Load(task=task, partition=partition):
                found = self._executor(client, task).summarize(client, partition)
                manifest = found.manifest
                return events.PartitionLoaded(
                    now, job, found.examples, 0, manifest.digest, values=manifest.values
                )
            case effects.Train():
                return self._trained(client, work, work.effect, now)
            case _:
                raise AssertionError(work.effect)

    def _trained(self, client: str, work: Work, effect: effects.Train, now: float) -> events.Trained:
        selected, executor = effect.selected, self._executor(client, effect.selected.task)
        self.trained.append((client, selected.round))
        result = ResultBuffer(MemoryPool())
        base = None if selected.base is None else selected.base.digest
        job = TrainJob(
            client,
            selected.task,
            effect.partition,
            base,
            selected.training,
            selected.round,
            selected.encoding,
        )
        if base is None:
            manifest = executor.initial_weights(selected.training.seed, result.allocate)
            update = TrainedUpdate(result.vector, 1, 0, 0.0, m.UpdateMetrics())
            outcome = train_outcome(job, manifest, result, update)
        else:
            manifest = work.models[0].weights.manifest
            update = executor.train(
                np.zeros(manifest.values, np.float32), manifest, effect.partition, selected.training, selected.round,
                client, lambda: False, result.allocate,
            )  # fmt: skip
            if work.masking is None:
                outcome = train_outcome(job, manifest, result, update)
            else:
                round_ = MaskedRound(work.masking, client, effect.partition, manifest)
                outcome = round_.outcome(update, "loss", MemoryPool(), lambda: False)
        return trained_event(outcome, base, now, effect.job)


@dataclass
class SurveyFederation(Federation):
    """A survey. ``policies``: of edges that do not do what is usual."""

    policies: Mapping[str, SurveyPolicy] = field(default_factory=dict)
    epochs: int = 1

    def _identity(self, name: str, roles: tuple[m.ClientRole, ...]) -> Identity:
        policy = self.policies.get(name, USUAL)
        return Identity(name, f"device-{name}", roles, ("tabular",), survey=policy)

    def sums_vector(self) -> Vector:
        """The sums of the newest version."""
        number = self.aggregator.state.version
        return read_arrays(self.directory / f"checkpoints/version-{number:06d}.state.safetensors")[1]["sums"]

    def sums(self) -> Sums:
        """What they say."""
        assert self.settings.survey is not None
        manifest = self.aggregator.runner.worker.averager.newest.manifest
        return Sums.read(self.sums_vector(), manifest, self.settings.survey.terms)
