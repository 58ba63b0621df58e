"""The real aggregator in virtual time, and edges in its process that only train: for thousands of cheap rounds.

Edges answer their aggregator as the protocol says, but have no session, link or broker (those of `simulate --virtual`
cost most of a run with 1,000 edges). Selection, checks, clipping, the exact sum, noise, accounting, checkpoints and
journal are the aggregator's own; training is that of a light edge, and so is what members of masked rounds do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from private_members import Member

from fl_aggregator.configuration.settings import Settings
from fl_aggregator.round.state import Run
from fl_aggregator.server import launch as launches
from fl_edge.data import datasets
from fl_edge.tasks.dense import DenseLayers
from fl_edge.tasks.dense_network import DenseNetwork
from fl_edge.tasks.task import Examples
from fl_edge.training.executor import edge_seed
from fl_mqtt.simulation.virtual.aggregator import Aggregator
from fl_mqtt.simulation.virtual.world import World
from fl_shared.protocol import messages as m
from fl_shared.protocol import topics as t
from fl_shared.tensors.digest import content_digest
from fl_shared.tensors.encodings.float32 import FLOAT32
from fl_shared.tensors.manifest import Vector
from fl_shared.tensors.sections import DELTA

TRAINING_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Problem:
    """A model and its data. ``train``: of all edges together."""

    layers: DenseLayers
    train: Examples
    test: Examples

    def parts(self, count: int, seed: int) -> list[Examples]:
        """Deals the training examples to ``count`` edges at random, as equally as can be."""
        order = np.random.default_rng(seed).permutation(len(self.train.labels))
        return [
            Examples(self.train.inputs[chosen], self.train.labels[chosen])
            for chosen in np.array_split(order, count)
        ]

    def accuracy(self, weights: Vector) -> float:
        """How often a model is right on the test split."""
        outputs = DenseNetwork(self.layers, arrays_of(self.layers, weights)).raw_outputs(self.test.inputs)
        return float((outputs.argmax(axis=1) == self.test.labels).mean())


def problem(data_set: datasets.DataSetName, hidden: Sequence[int]) -> Problem:
    """Pictures of a data set with standardized pixels, and a dense model with so many ``hidden`` units a layer."""
    train, test = (datasets.read(data_set, split, None) for split in ("train", "test"))
    mean, deviation = np.float32(train.images.mean()), np.float32(train.images.std())

    def examples(data: datasets.DataSet) -> Examples:
        pixels = data.images.reshape(len(data.images), -1).astype(np.float32)
        return Examples((pixels - mean) / deviation, data.labels)

    inputs = examples(train).inputs.shape[1]
    return Problem(DenseLayers((inputs, *hidden, datasets.CLASSES)), examples(train), examples(test))


def arrays_of(layers: DenseLayers, weights: Vector) -> dict[str, Vector]:
    """The arrays of a model, as copies."""
    found, start = {}, 0
    for spec in layers.manifest.arrays:
        size = int(np.prod(spec.shape))
        found[spec.name] = weights[start : start + size].reshape(spec.shape).copy()
        start += size
    return found


def vector_of(layers: DenseLayers, arrays: Mapping[str, Vector]) -> Vector:
    """A model as one vector, in the order of the manifest."""
    return np.concatenate([arrays[spec.name].ravel() for spec in layers.manifest.arrays]).astype(np.float32)


@dataclass
class Edges:
    """What the aggregator takes for its network: it delivers to edges that train with ``settings`` of the task.

    ``members``: the edges of a run with masked rounds, by name; empty without masks.
    """

    world: World
    problem: Problem
    parts: Sequence[Examples]
    training: m.TrainingSettings
    members: Mapping[str, Member] = field(default_factory=dict)
    base: Callable[[], Vector] = field(init=False)
    """Returns the weights of the newest version."""
    norms: list[float] = field(default_factory=list)
    """The L2 norms of all updates, before the aggregator clips them."""
    retained: dict[t.Topic, m.Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._answered: set[tuple[str, int]] = set()
        self._deliver: Any = None

    def connect_aggregator(self, deliver: Any, will: m.AggregatorPresence) -> None:
        del will
        self._deliver = deliver

    def disconnect_aggregator(self) -> None:
        self._deliver = None

    def register(self) -> None:
        """Lets all edges register."""
        for number in range(len(self.parts)):
            self._say(t.RegisterTopic(str(number)), m.Registration(**self._identity(str(number))))

    def publish(self, topic: t.Topic, message: m.Message | None, *, retain: bool) -> None:
        """Takes a message of the aggregator to the edges that it is for."""
        del retain
        match message:
            case m.Admitted(examples=None, client=client):
                count = 1 if message.private else len(self.parts[int(client)])
                known: dict[str, Any] = {
                    "run": message.run,
                    "incarnation": message.incarnation,
                    "task": message.task,
                }
                if message.masked:
                    known["keys"] = self.members[client].keys(message)
                self._say(
                    t.RegisterTopic(client),
                    m.Registration(
                        **self._identity(client), **known, examples=count,
                        manifest=self.problem.layers.manifest.digest,
                    ),
                )  # fmt: skip
            case m.Selected():
                cohort = (topic.client,) if isinstance(topic, t.WorkTopic) else message.cohort or ()
                for client in cohort:
                    if (client, message.round) not in self._answered:
                        self._answered.add((client, message.round))
                        self._say(t.UpdatesTopic(client), self._update(client, message))
            case m.Closing() | m.Reveal() if isinstance(topic, t.UnmaskTopic):
                answer = self.members[topic.client].answer(message, self._scope(topic.client, message))
                self._say(t.UpdatesTopic(topic.client), answer)

    def _identity(self, client: str) -> dict[str, Any]:
        return {
            "seq": 1, "client": client, "session": f"session-{client}", "device": f"device-{client}",
            "roles": ("train",), "encodings": (FLOAT32.name,),
        }  # fmt: skip

    def _say(self, topic: t.Topic, message: m.Message) -> None:
        self.world.after(TRAINING_SECONDS, lambda: self._deliver(topic, message, False))

    def _update(self, client: str, selected: m.Selected) -> m.Update:
        layers, examples = self.problem.layers, self.parts[int(client)]
        is_first, private = selected.base is None, selected.privacy is not None
        if is_first:
            values = vector_of(layers, layers.first_weights(selected.training.seed))
        else:
            weights = self.base()
            network = DenseNetwork(layers, arrays_of(layers, weights))
            seed = edge_seed(selected.training.seed, selected.round, client)
            network.fit(examples, self.training, seed, lambda: False)
            values = vector_of(layers, network.arrays) - weights
            self.norms.append(float(np.linalg.norm(values)))
        envelope = self._scope(client, selected)
        common = {**envelope, "round": selected.round, "metrics": m.UpdateMetrics()}
        base = None if selected.base is None else selected.base.digest
        if selected.masked is not None:
            return m.Update(**common, base=base, **self.members[client].masked(selected, values))
        manifest, data = layers.manifest.digest, values.tobytes()
        section = m.Section(
            name=DELTA, encoding=FLOAT32.name, manifest=manifest, data=data,
            arrays=layers.manifest.arrays if is_first else None,
        )  # fmt: skip
        return m.Update(
            **common, base=base, examples=1 if private else len(examples),
            steps=0 if is_first or private else 1, seconds=0.0,
            digest=content_digest([(DELTA, FLOAT32.name, manifest, data)]), sections=(section,),
        )  # fmt: skip

    def _scope(self, client: str, message: m.Scoped) -> dict[str, Any]:
        return {
            "run": message.run, "incarnation": message.incarnation, "seq": 1, "client": client,
            "session": f"session-{client}",
        }  # fmt: skip


def train(
    settings: Settings, found: Problem, training: m.TrainingSettings, directory: Path
) -> tuple[Run, Vector, list[float]]:
    """Runs to the end in ``directory``; returns the last state, the weights, and the norms of all updates."""
    world = World()
    launch = launches.new(settings, directory)
    names = [str(number) for number in range(settings.clients if settings.masked else 0)]
    members = {name: Member(name, directory / "edges" / name, found.layers.manifest) for name in names}
    edges = Edges(world, found, found.parts(settings.clients, settings.seed), training, members)
    launch.directory.write_run(launch.record)
    aggregator = Aggregator(launch, world, edges)  # type: ignore[arg-type]
    averager = aggregator.runner.worker.averager
    edges.base = lambda: averager.newest.weights
    aggregator.begin()
    edges.register()
    while not aggregator.state.ended and world.step():
        pass
    aggregator.kill()
    launch.close()
    return aggregator.state, averager.newest.weights, edges.norms
