"""The fleet of a simulation with attackers: ``fl-edge`` with other workers, of which no option of it tells.

``python -m fl_mqtt.simulation.attacking fleet ATTACK CLIENTS TASK [option of fl-edge …]`` starts it. Its workers are
``python -m fl_mqtt.simulation.attacking worker ATTACK CLIENTS TASK [option of a worker …]``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.executor import Executor, TrainedUpdate, VectorAllocator
from fl_mqtt.simulation.attacks import Attack, Training, parse_attack
from fl_mqtt.simulation.local import ATTACKING
from fl_shared.protocol.messages import Partition, TrainingRequest
from fl_shared.tensors.manifest import Manifest, Vector

if TYPE_CHECKING:
    from fl_edge.training.example_level import PrivateSgd


class AttackingExecutor:
    """An executor whose trainings are attacks, if an attacker is asked; else it is ``executor``."""

    def __init__(self, executor: Executor, attack: Attack, clients: int) -> None:
        attack.refuse(executor)
        self._executor = executor
        self._attack = attack
        self._clients = clients
        self._attackers = attack.attackers(clients)
        self._memory: dict[Any, Vector] = {}

    def __getattr__(self, name: str) -> Any:
        """Everything but training is that of the executor."""
        return getattr(self._executor, name)

    def train(
        self,
        base: Vector,
        manifest: Manifest,
        partition: Partition,
        settings: TrainingRequest,
        round_number: int,
        client: str,
        cancelled: Callable[[], bool],
        allocate: VectorAllocator,
        correction: CorrectionRequest | None = None,
        local: Vector | None = None,
        private: PrivateSgd | None = None,
    ) -> TrainedUpdate:
        """Trains, or attacks (see `executor.Executor`)."""
        training = Training(
            self._executor,
            base,
            manifest,
            partition,
            settings,
            round_number,
            client,
            cancelled,
            self._attackers,
            self._clients,
            self._memory,
            correction,
            local,
            private,
        )
        return self._attack.train(training, allocate) if client in self._attackers else training.run(allocate)


def main() -> int:
    """Runs the fleet, or one of its workers; returns the exit code."""
    role, text, clients, task = sys.argv[1:5]
    del sys.argv[1:5]
    if role == "fleet":
        from fl_edge.cli import main as fl_edge

        fl_edge(worker=(ATTACKING, "worker", text, clients, task))
    from fl_edge.workers import worker

    attack = parse_attack(text, int(clients), task)

    attacking: dict[int, Executor] = {}  # the executors are cached, too

    def wrap(executor: Executor) -> Executor:
        if id(executor) not in attacking:
            attacking[id(executor)] = cast(Executor, AttackingExecutor(executor, attack, int(clients)))
        return attacking[id(executor)]

    return worker.main(wrap)


if __name__ == "__main__":
    sys.exit(main())
