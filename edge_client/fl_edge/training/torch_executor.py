"""Executes a `Task` in torch (see `executor.Executor`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from fl_edge.session.privacy import NOT_WITH_DP_SGD
from fl_edge.tasks.task import Task
from fl_edge.training import local_training
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.example_level import PrivateSgd, check_model
from fl_edge.training.executor import TrainedUpdate, VectorAllocator, training_settings
from fl_edge.training.local_part import ALL_SHARED, LocalPart
from fl_edge.training.model_check import examine_model
from fl_edge.training.precision import has_bf16
from fl_edge.training.task_executor import TaskExecutor
from fl_shared.protocol.abilities import BF16
from fl_shared.protocol.messages import Partition, TrainingRequest
from fl_shared.tensors.manifest import Manifest, Vector


class TorchExecutor(TaskExecutor):
    """The executor of a task in torch, on ``device``."""

    def __init__(
        self,
        task: Task,
        data_dir: Path | None,
        device: str,
        part: LocalPart = ALL_SHARED,
        *,
        hides_examples: bool = False,
    ) -> None:
        """``hides_examples``: every training is one with ``private``."""
        super().__init__(task, data_dir, part)
        local_training.configure_torch()
        self._device = device
        self._hides_examples = hides_examples

    def abilities(self) -> tuple[str, ...]:
        if self._hides_examples:
            return tuple(one for one in super().abilities() if one not in NOT_WITH_DP_SGD)
        return (*super().abilities(), *([BF16] if has_bf16(self._device) else []))

    def own_manifest(self) -> Manifest:
        examine_model(self.task)
        if self._hides_examples:
            check_model(self.task, local_training.build_model(self.task, 0))
        return local_training.shared_manifest(self.task, local_training.build_model(self.task, 0), self.part)

    def unshared_names(self) -> tuple[str, ...]:
        state = local_training.build_model(self.task, 0).state_dict()
        return tuple(sorted(state.keys() - {one.name for one in self._manifest.arrays}))

    def model_from(self, vector: Vector, manifest: Manifest, local: Vector | None = None) -> nn.Module:
        return local_training.model_from(
            self.task, vector, manifest, self._device, self.part.seed, self.part, local
        )

    def initial_weights(self, seed: int, allocate: VectorAllocator) -> Manifest:
        manifest, weights = local_training.initial_weights(self.task, seed, self.part)
        allocate(manifest.values)[:] = weights
        return manifest

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
        return local_training.train_update(
            self.task,
            self.load(client, partition),
            base,
            manifest,
            training_settings(settings, self.task.defaults),
            round_number,
            client,
            cancelled,
            self._device,
            allocate,
            correction,
            settings.clip_gradients,
            settings.precision,
            self.part,
            local,
            private,
        )
