"""How a check makes a task's model and trains it: with PyTorch (`torch_trial`), or with NumPy alone (`light_trial`)."""

from __future__ import annotations

from typing import Any, Final, Protocol

from fl_edge.tasks.task import LocalData
from fl_edge.training.executor import TrainedUpdate
from fl_shared.protocol.messages import TrainingSettings
from fl_shared.tensors.manifest import Manifest, Vector

CLIENT: Final = "check"


class Trial(Protocol):
    """What `TaskCheck` does with the model of one task. Its methods raise what the task raises."""

    def describe(self) -> str:
        """Returns the model's kind and size. Raises ``UnusableModelError`` if it cannot be trained in a run."""
        ...

    def initial_weights(self, seed: int) -> tuple[Manifest, Vector]:
        """Returns the first weights."""
        ...

    def kinds(self) -> dict[str, str]:
        """Returns the type of the numbers in each array, also in those that do not travel."""
        ...

    def tied(self) -> list[list[str]]:
        """Returns the names of parameters that are one and the same."""
        ...

    def frozen(self) -> list[str]:
        """Returns the names of parameters that are not trained."""
        ...

    def train(
        self,
        data: LocalData,
        weights: Vector,
        manifest: Manifest,
        settings: TrainingSettings,
        clip_gradients: float = 0.0,
    ) -> TrainedUpdate:
        """Trains from ``weights``. ``clip_gradients``: the greatest L2 norm of a gradient; 0: any."""
        ...

    def model_from(self, weights: Vector, manifest: Manifest) -> Any:
        """Returns the model that the task evaluates, and predicts with."""
        ...
