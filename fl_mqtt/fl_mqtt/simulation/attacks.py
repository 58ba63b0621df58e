"""Attackers in a simulation, with which anybody can try how robust a strategy is.

A kind of attack is a frozen dataclass whose fields are its parameters, and a line in `ATTACKS`. Attackers register,
load and train like other edges, and say the truth about examples and metrics: only their update is another one. All
values of the update are attacked, those of buffers too. An aggregator refuses what exceeds its caps (``--max-delta``).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from pydantic import Field

from fl_aggregator.storage.run_directory import AttackRecord
from fl_edge.errors import DivergedError, UnknownTaskError
from fl_edge.tasks.synthetic import parameter_count
from fl_edge.tasks.task import Examples, LocalData
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.executor import Executor, TrainedUpdate, VectorAllocator, edge_seed
from fl_edge.training.task_executor import TaskExecutor
from fl_shared.cli.specification import make, split
from fl_shared.errors import UserError
from fl_shared.protocol.messages import Partition, TrainingRequest
from fl_shared.system.text import names_text, natural_order
from fl_shared.tensors.manifest import Manifest, Vector

if TYPE_CHECKING:
    from fl_edge.training.example_level import PrivateSgd

OPTION: Final = "attack"
MAX_NAMED: Final = 10
"""Attackers that are named in words."""
_NO_CLASSES: Final = "has no classes to flip; expected one that tells classes apart, or another attack"
Edges = Annotated[str, Field(pattern=r"^\d{1,9}(\+\d{1,9})*$")]
Factor = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Training:
    """A training that an attacker is asked for. ``executor`` trains honestly; ``memory`` is its own, for all rounds."""

    executor: Executor
    base: Vector
    manifest: Manifest
    partition: Partition
    settings: TrainingRequest
    round_number: int
    client: str
    cancelled: Callable[[], bool]
    attackers: tuple[str, ...]
    clients: int
    memory: dict[Any, Vector]
    correction: CorrectionRequest | None = None
    local: Vector | None = None
    private: PrivateSgd | None = None

    def run(
        self, allocate: VectorAllocator, client: str | None = None, executor: Executor | None = None
    ) -> TrainedUpdate:
        """Trains honestly as ``client``, or as the attacker. Edge k has partition k of the data."""
        partition = self.partition
        if client is not None:
            partition = partition.model_copy(update={"index": int(client)})
        return (executor or self.executor).train(
            self.base.copy(),  # training may overwrite it
            self.manifest,
            partition,
            self.settings,
            self.round_number,
            client or self.client,
            self.cancelled,
            allocate,
            self.correction,
            self.local,
            self.private,
        )


@dataclass(frozen=True, slots=True)
class Attack(ABC):
    """``edges``: how many edges attack, those with the lowest ids; or which, with + between ids."""

    edges: Edges

    @property
    @abstractmethod
    def summary(self) -> str:
        """What the attackers do, in a few words."""

    @abstractmethod
    def train(self, training: Training, allocate: VectorAllocator) -> TrainedUpdate:
        """Returns the update that an attacker sends, with its delta in a vector of ``allocate``."""

    def attackers(self, clients: int) -> tuple[str, ...]:
        """Returns the ids of the edges that attack in a run with ``clients`` edges. Raises ``ValueError``."""
        if "+" in self.edges:
            named = tuple(natural_order({str(int(number)) for number in self.edges.split("+")}))
            if int(named[-1]) >= clients:
                raise ValueError(f"edge {named[-1]} is not one of 0 to {clients - 1}")
            return named
        if not 0 < int(self.edges) <= clients:
            raise ValueError(f"expected 1 to {clients} (--clients), or ids such as 0+2")
        return tuple(map(str, range(int(self.edges))))

    def check(self, clients: int, task: str) -> None:  # noqa: ARG002  most attacks fit any task
        """Raises ``ValueError`` if the attack is not possible in a run of ``task`` with ``clients`` edges."""
        self.attackers(clients)

    def refuse(self, executor: Executor) -> None:  # noqa: B027  most attacks fit any task
        """Raises ``EdgeError`` if the attack is not possible on the task of ``executor``."""


@dataclass(frozen=True, slots=True)
class SignFlip(Attack):
    """Δ ← −``factor`` Δ: the opposite of what was learnt (Li et al. 2019, arXiv:1811.03761, section 5)."""

    factor: Factor = 1.0

    @property
    def summary(self) -> str:
        return f"sign-flip × {self.factor:g}"

    def train(self, training: Training, allocate: VectorAllocator) -> TrainedUpdate:
        return _scaled(training.run(allocate), -self.factor)


@dataclass(frozen=True, slots=True)
class Scaled(Attack):
    """Δ ← ``factor`` Δ: an update that replaces the mean (Bagdasaryan et al. 2020, arXiv:1807.00459, equation 3)."""

    factor: Factor = 20.0

    @property
    def summary(self) -> str:
        return f"scaled × {self.factor:g}"

    def train(self, training: Training, allocate: VectorAllocator) -> TrainedUpdate:
        return _scaled(training.run(allocate), self.factor)


@dataclass(frozen=True, slots=True)
class Gaussian(Attack):
    """Δ ← N(0, ``std``²): noise, as from a broken device (Blanchard et al. 2017, section 5)."""

    std: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 0.1

    @property
    def summary(self) -> str:
        return f"gaussian, deviation {self.std:g}"

    def train(self, training: Training, allocate: VectorAllocator) -> TrainedUpdate:
        update = training.run(allocate)
        seed = edge_seed(training.settings.seed, training.round_number, f"{training.client}/gaussian")
        update.delta[:] = np.random.default_rng(seed).standard_normal(len(update.delta), np.float32)
        return _scaled(update, self.std)


@dataclass(frozen=True, slots=True)
class LabelFlip(Attack):
    """y ← C − 1 − y in the training part, C the number of classes (Tolpegin et al. 2020, arXiv:2007.08432).

    It is the mislabelled site as well as the attacker. The holdout keeps its labels. Only for tasks with classes.
    """

    @property
    def summary(self) -> str:
        return "label-flip"

    def train(self, training: Training, allocate: VectorAllocator) -> TrainedUpdate:
        executor = training.executor
        assert isinstance(executor, TaskExecutor), "see refuse"
        last = len(executor.task.labels) - 1

        def flipped(data: LocalData) -> LocalData:
            return replace(data, train=Examples(data.train.inputs, last - data.train.labels))

        return training.run(allocate, executor=executor.with_data(flipped))

    def check(self, clients: int, task: str) -> None:
        self.attackers(clients)
        if parameter_count(task) is not None:
            raise ValueError(f"task {task} {_NO_CLASSES}")

    def refuse(self, executor: Executor) -> None:
        assert isinstance(executor, TaskExecutor), "see check"
        if not executor.task.labels:
            raise UnknownTaskError(f"--{OPTION} label-flip: task {executor.task.name} {_NO_CLASSES}")


@dataclass(frozen=True, slots=True)
class Alie(Attack):
    """ "A Little Is Enough": Δ ← μ − z σ, just inside the spread of the honest (Baruch et al. 2019, arXiv:1902.06156).

    Algorithm 3: of n edges m attack, s = ⌊n/2 + 1⌋ − m, and z is the largest with Φ(z) < (n − m − s) / (n − m).
    As in the paper, the attackers do not see the others' updates: μ and σ, by coordinate, are the mean and the standard
    deviation of what the m attackers would have sent honestly. They share their data for that, and all send the same.
    Each process of the fleet trains as all of them once a round. ``z``: another z than this one.
    """

    z: Annotated[float, Field(ge=0, le=100)] | None = None

    @property
    def summary(self) -> str:
        return "alie" if self.z is None else f"alie, z {self.z:g}"

    def check(self, clients: int, task: str) -> None:  # noqa: ARG002  it fits any task
        attackers = len(self.attackers(clients))
        if attackers < 2 or 2 * attackers >= clients:
            raise ValueError(f"expected at least 2 attackers and less than half of --clients ({clients})")

    def train(self, training: Training, allocate: VectorAllocator) -> TrainedUpdate:
        own = training.run(allocate)
        key = training.settings.seed, training.round_number
        if key not in training.memory:
            training.memory.clear()
            training.memory[key] = self._forge(training)
        own.delta[:] = training.memory[key]
        return own

    def _forge(self, training: Training) -> Vector:
        honest = [
            training.run(lambda values: np.empty(values, np.float32), client).delta
            for client in training.attackers
        ]
        mean, square = np.zeros((2, len(honest[0])))
        for delta in honest:
            mean += delta
        mean /= len(honest)
        for delta in honest:
            square += np.square(delta - mean)
        forged: Vector = (mean - self._z_of(training) * np.sqrt(square / len(honest))).astype(np.float32)
        return forged

    def _z_of(self, training: Training) -> float:
        n, m = training.clients, len(training.attackers)
        s = math.floor(n / 2 + 1) - m
        return NormalDist().inv_cdf((n - m - s) / (n - m)) if self.z is None else self.z


ATTACKS: Final[Mapping[str, type[Attack]]] = {
    "sign-flip": SignFlip,
    "label-flip": LabelFlip,
    "scaled": Scaled,
    "gaussian": Gaussian,
    "alie": Alie,
}


def parse_attack(text: str, clients: int, task: str) -> Attack:
    """Returns the attack ``KIND:FIELD=VALUE,…`` on a run of ``task`` with ``clients`` edges.

    Raises ``UserError``, which names the field.
    """
    name, fields = split(OPTION, text)
    if name not in ATTACKS:
        raise UserError(f"--{OPTION} {name!r}: expected one of {', '.join(ATTACKS)}")
    attack: Attack = make(OPTION, name, ATTACKS[name], fields)
    try:
        attack.check(clients, task)
    except ValueError as error:
        raise UserError(f"--{OPTION} {text}: {error}") from None
    return attack


def attack_record(text: str | None, clients: int, task: str) -> AttackRecord | None:
    """Returns what a run records of the attack; in words: ``2 of 20 edges attack (0, 1): sign-flip × 5``.

    Raises ``UserError``.
    """
    if text is None:
        return None
    attack = parse_attack(text, clients, task)
    attackers = attack.attackers(clients)
    who = f"{len(attackers)} of {clients} edges attack ({names_text(attackers, MAX_NAMED)})"
    return AttackRecord(specification=text, summary=f"{who}: {attack.summary}", edges=attackers)


def _scaled(update: TrainedUpdate, factor: float) -> TrainedUpdate:
    with np.errstate(over="ignore"):
        np.multiply(update.delta, np.float32(factor), out=update.delta)
    if not np.isfinite(update.delta).all():
        raise DivergedError(f"the attack multiplies the update by {factor:g}, which is too large for float32")
    return update
