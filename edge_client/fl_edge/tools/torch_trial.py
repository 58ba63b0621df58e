"""Makes and trains a task's model with PyTorch (see `trial.Trial`)."""

from __future__ import annotations

from torch import nn

from fl_edge.tasks.task import LocalData, Task
from fl_edge.tools.trial import CLIENT
from fl_edge.training import local_training
from fl_edge.training.executor import TrainedUpdate
from fl_edge.training.model_check import examine_model
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Manifest, Vector


class TorchTrial:
    """The trial of any task."""

    def __init__(self, task: Task) -> None:
        local_training.configure_torch()
        self._task = task

    def describe(self) -> str:
        examine_model(self._task)
        model = self._model()
        return f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters"

    def initial_weights(self, seed: int) -> tuple[Manifest, Vector]:
        return local_training.initial_weights(self._task, seed)

    def kinds(self) -> dict[str, str]:
        state = self._model().state_dict()
        return {name: str(value.dtype).removeprefix("torch.") for name, value in state.items()}

    def tied(self) -> list[list[str]]:
        names: dict[int, list[str]] = {}
        for name, value in self._model().named_parameters(remove_duplicate=False):
            names.setdefault(id(value), []).append(name)
        return [group for group in names.values() if len(group) > 1]

    def frozen(self) -> list[str]:
        return [name for name, value in self._model().named_parameters() if not value.requires_grad]

    def train(
        self,
        data: LocalData,
        weights: Vector,
        manifest: Manifest,
        settings: TrainingSettings,
        clip_gradients: float = 0.0,
    ) -> TrainedUpdate:
        return local_training.train_update(
            self._task,
            data,
            weights,
            manifest,
            settings,
            1,
            CLIENT,
            lambda: False,
            clip_gradients=clip_gradients,
        )

    def model_from(self, weights: Vector, manifest: Manifest) -> nn.Module:
        return local_training.model_from(self._task, weights, manifest)

    def _model(self) -> nn.Module:
        return local_training.build_model(self._task, 0)
