"""A run in virtual time with jobs that cost nothing, whose vectors follow from the seed, the round and the client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fl_aggregator.aggregation.worker import JobDone
from fl_aggregator.configuration.settings import Settings
from fl_aggregator.server import launch as launches
from fl_aggregator.storage.run_directory import RunRecord
from fl_edge.runtime.masked_member import MaskedMember
from fl_edge.session import effects, events
from fl_edge.session.state import Identity
from fl_edge.session.work import EvaluationScores
from fl_edge.storage.own_state_files import OwnStateFiles
from fl_edge.storage.run_keys_file import RunKeysFile
from fl_edge.tasks.synthetic import NAME_PREFIX
from fl_edge.training.executor import TrainedUpdate, edge_seed
from fl_edge.training.local_part import LOCAL, PERSONAL
from fl_edge.workers.jobs import Masking, TrainJob, TrainOutcome
from fl_edge.workers.masked_result import MaskedRound
from fl_edge.workers.training_result import ERROR, ResultBuffer, train_outcome
from fl_mqtt.simulation.virtual.aggregator import Aggregator
from fl_mqtt.simulation.virtual.devices import DATA_CENTRE, Device
from fl_mqtt.simulation.virtual.edge import Edge
from fl_mqtt.simulation.virtual.jobs import JobEvent, Work
from fl_mqtt.simulation.virtual.models import Models
from fl_mqtt.simulation.virtual.network import Faults, Link, Network
from fl_mqtt.simulation.virtual.world import World
from fl_shared.protocol import messages as m
from fl_shared.protocol.task_spec import keeps_local
from fl_shared.system.shared_memory import MemoryPool
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import ArraySpec, Manifest, Vector
from fl_shared.tensors.sections import DELTA, ModelSection, model_digest
from fl_shared.transfer.upload import FinishedUpdate

VALUES = 16
MANIFEST = Manifest(arrays=(ArraySpec(name="w", shape=(VALUES,)),))
UNIFORM = Device(1000.0, Link(0.05, 1.25e6, 1.25e6))
EXAMPLES = 100


class InstantJobs:
    """See `jobs.Jobs`."""

    def __init__(self) -> None:
        self.trained: list[tuple[str, int]] = []
        """The clients and rounds of trainings whose result was looked at."""
        self.made: dict[tuple[str, str], FinishedUpdate] = {}
        """Their updates, by client and digest."""
        self._work: dict[tuple[str, int], Work] = {}

    @property
    def open(self) -> int:
        """The trainings that have begun and were neither looked at nor cancelled."""
        return sum(isinstance(work.effect, effects.Train) for work in self._work.values())

    def begin(self, client: str, work: Work, due: float) -> None:
        del due
        self._work[client, work.effect.job] = work

    def cancel(self, client: str, job: int) -> None:
        del self._work[client, job]

    def result(self, client: str, job: int, now: float) -> JobEvent:
        work = self._work.pop((client, job))
        match work.effect:
            case effects.Load():
                return events.PartitionLoaded(now, job, EXAMPLES, 0, MANIFEST.digest, values=VALUES)
            case effects.Train(selected=selected, partition=partition):
                self.trained.append((client, selected.round))
                if work.masking is not None:
                    return masked(client, work.masking, partition, now, job)
                made, kept = encoded(client, selected, work.own or {})
                if selected.base and keeps_local(selected.task):
                    kept[LOCAL] = memoryview(bytes(4))
                self.made[client, made.digest] = made
                return events.Trained(now, job, made, kept)
            case effects.Evaluate():
                return events.ModelEvaluated(now, job, EvaluationScores(1, 0.5))
            case effects.Personalize(announced=announced):
                metrics = m.UpdateMetrics(
                    before={"loss": 0.5, "examples": 1.0}, after={"loss": 0.25, "examples": 1.0}
                )
                made = replace(update(client, 1 + announced.round, announced.digest, 0), metrics=metrics)
                return events.Trained(now, job, made, {PERSONAL: memoryview(bytes(4))})


def delta_of(seed: int, round_number: int, client: str) -> Vector:
    """The values of an update; the first weights are the same whoever makes them."""
    rng = np.random.default_rng(edge_seed(seed, round_number, client if round_number else ""))
    return rng.normal(scale=0.01, size=VALUES).astype("<f4")


def update(client: str, number: int, base: str | None, seed: int) -> FinishedUpdate:
    """The update that ``client`` makes in a round."""
    values = delta_of(seed, number, client)
    section = ModelSection(DELTA, MANIFEST, memoryview(values.tobytes()))
    return FinishedUpdate(
        base=base, digest=model_digest([section]), examples=EXAMPLES, steps=0 if base is None else 1,
        seconds=0.0, metrics=m.UpdateMetrics(), sections=(section,),
    )  # fmt: skip


def masked(client: str, masking: Masking, partition: m.Partition, now: float, job: int) -> events.Trained:
    """What a worker makes of the update of ``client`` in a masked round."""
    selected = masking.selected
    assert selected.base is not None
    values = delta_of(selected.training.seed, selected.round, client)
    trained = TrainedUpdate(values, EXAMPLES, 1, 0.0, m.UpdateMetrics())
    masked_round = MaskedRound(masking, client, partition, MANIFEST)
    outcome = masked_round.outcome(trained, "loss", MemoryPool(), lambda: False)
    return trained_event(outcome, selected.base.digest, now, job)


def trained_event(outcome: TrainOutcome, base: str | None, now: float, job: int) -> events.Trained:
    """The event that the result of a worker leads to."""
    plan, body = (None, None) if outcome.masked is None else (outcome.masked.plan, outcome.masked.body)
    made = FinishedUpdate(
        base=base, digest=outcome.digest, examples=outcome.examples, steps=outcome.steps, seconds=outcome.seconds,
        metrics=outcome.metrics, sections=outcome.update_sections(), plan=plan,
    )  # fmt: skip
    return events.Trained(now, job, made, body=body)


def encoded(
    client: str, selected: m.Selected, own: Mapping[str, memoryview]
) -> tuple[FinishedUpdate, dict[str, memoryview]]:
    """The update that ``client`` makes in a round, in its encoding, and what it keeps, as its worker makes them."""
    base, seed = None if selected.base is None else selected.base.digest, selected.training.seed
    exact, result = update(client, selected.round, base, seed), ResultBuffer(MemoryPool())
    result.allocate(VALUES)[:] = delta_of(seed, selected.round, client)
    part = m.Partition(index=0, count=1, scheme="iid", seed=0, holdout=0)
    job = TrainJob(client, selected.task, part, base, selected.training, selected.round, selected.encoding)
    trained = TrainedUpdate(result.vector, exact.examples, exact.steps, exact.seconds, exact.metrics)
    error = FLOAT32.decode(own[ERROR]) if ERROR in own else None
    outcome = train_outcome(job, MANIFEST, result, trained, error)
    section = ModelSection(DELTA, MANIFEST, outcome.delta.view, outcome.encoding)
    kept = {} if outcome.own is None else dict(outcome.own.parts())
    return replace(exact, digest=outcome.digest, sections=(section,)), kept


@dataclass
class Federation:
    """A run in ``directory``, and its edges, which outlive their aggregator."""

    directory: Path
    settings: Settings
    device: Callable[[str], Device] = lambda _client: UNIFORM
    faults: Faults | None = None
    watch: Callable[[Aggregator], None] = lambda _aggregator: None
    """Is given each incarnation of the aggregator before it begins."""
    job_seconds: Callable[[JobDone], float] = lambda _job: 0.0
    """See `Aggregator`."""
    jobs: InstantJobs = field(default_factory=InstantJobs)
    init: Path | None = None
    """The file of the first weights; null: an edge makes them."""
    epochs: int = 10
    """See `Edge`."""
    aggregator: Aggregator = field(init=False)
    edges: dict[str, Edge] = field(init=False)

    def __post_init__(self) -> None:
        self.world = World()
        self.network = Network(self.world, self.faults)
        self.models = Models(self.network)
        self._launch = launches.new(self.settings, self.directory, self.init)
        self._begin()
        names = [str(number) for number in range(self.settings.clients)]
        self.edges = {name: self._edge(name, ("train",), self.device(name)) for name in names}
        self.edges["evaluator"] = self._edge("evaluator", ("evaluate",), DATA_CENTRE)
        for edge in self.edges.values():
            edge.connect()

    def _edge(self, name: str, roles: tuple[m.ClientRole, ...], device: Device) -> Edge:
        directory = self.directory / "edges" / name
        directory.mkdir(parents=True)
        files = OwnStateFiles(directory, name)
        member = MaskedMember(name, RunKeysFile(directory, name))
        identity = self._identity(name, roles)
        return Edge(
            self.world,
            self.network,
            self.models,
            self.jobs,
            identity,
            device,
            files,
            member,
            epochs=self.epochs,
        )

    def _identity(self, name: str, roles: tuple[m.ClientRole, ...]) -> Identity:
        return Identity(name, f"device-{name}", roles, (), task_prefixes=(NAME_PREFIX,))

    def _begin(self) -> None:
        self._launch.directory.write_run(self._launch.record)
        self.aggregator = Aggregator(self._launch, self.world, self.network, job_seconds=self.job_seconds)
        self.watch(self.aggregator)
        self.aggregator.begin()

    def run(self, events: int = 10**7) -> None:
        """Lets at most ``events`` happen; ends with the run."""
        for _ in range(events):
            if self.aggregator.state.ended or not self.world.step():
                return

    def restart_aggregator(self) -> None:
        """Kills the aggregator, and resumes its run at once."""
        self.kill_aggregator()
        self.resume_aggregator()

    def kill_aggregator(self) -> None:
        self.aggregator.kill()
        self._launch.close()

    def resume_aggregator(self) -> None:
        """Resumes the run of the aggregator that was killed; its journal must have all that was decided."""
        self._launch = launches.resume(self.directory, simulated=False)
        assert self._launch.recovered is not None
        assert self._launch.recovered.state == self.aggregator.state, "the journal restores another state"
        self._begin()

    @property
    def record(self) -> RunRecord:
        """What ``run.json`` says."""
        return self._launch.record

    def history(self) -> Iterator[dict[str, Any]]:
        """The lines of the history."""
        return self._launch.directory.history()

    def newest_weights(self) -> Vector:
        """The weights of the newest version."""
        return self.aggregator.runner.worker.averager.newest.weights

    def close(self) -> None:
        self.kill_aggregator()
