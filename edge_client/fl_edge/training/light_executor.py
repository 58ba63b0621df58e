"""Executes a `DenseTask` in NumPy, without torch (see `executor.Executor`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fl_edge.errors import UnknownTaskError
from fl_edge.tasks.dense import DenseLayers, DenseTask
from fl_edge.tasks.dense_network import DenseNetwork
from fl_edge.tasks.steps import observed
from fl_edge.tasks.task import TrainReport
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.corrections.observation import Layout, observation_of
from fl_edge.training.executor import TrainedUpdate, VectorAllocator, edge_seed, training_settings
from fl_edge.training.local_part import ALL_SHARED, LocalPart
from fl_edge.training.task_executor import TaskExecutor
from fl_edge.training.update import check_manifests_match, make_update
from fl_shared.protocol.messages import Partition, TrainingRequest
from fl_shared.tensors.manifest import Manifest, Vector, flatten, unflatten

if TYPE_CHECKING:
    from fl_edge.training.example_level import PrivateSgd


class LightExecutor(TaskExecutor):
    """The executor of a task with a dense model."""

    task: DenseTask

    def __init__(self, task: DenseTask, data_dir: Path | None, part: LocalPart = ALL_SHARED) -> None:
        super().__init__(task, data_dir, part)

    def own_manifest(self) -> Manifest:
        return self._split(self.task.layers())[0]

    def unshared_names(self) -> tuple[str, ...]:
        own = self._split(self.task.layers())[1]
        return () if own is None else tuple(sorted(one.name for one in own.arrays))

    def model_from(self, vector: Vector, manifest: Manifest, local: Vector | None = None) -> DenseNetwork:
        layers = self.task.layers_for(manifest)
        shared, own = self._split(layers)
        check_manifests_match(self.task, manifest, shared)
        arrays = unflatten(vector, manifest)
        if own is not None:
            first = layers.first_weights(self.part.seed)
            arrays |= (
                {one.name: first[one.name] for one in own.arrays} if local is None else unflatten(local, own)
            )
        return DenseNetwork(layers, arrays)

    def initial_weights(self, seed: int, allocate: VectorAllocator) -> Manifest:
        layers = self.task.layers()
        manifest, _ = self._split(layers)
        allocate(manifest.values)[:] = flatten(layers.first_weights(seed), manifest)
        return manifest

    def _split(self, layers: DenseLayers) -> tuple[Manifest, Manifest | None]:
        """Returns the manifests of what is shared, and of what stays on the edge; null if nothing does."""
        arrays = layers.manifest.arrays
        local = self.part.names([one.name for one in arrays])
        if not local:
            return layers.manifest, None
        shared, own = ([one for one in arrays if (one.name in local) == stays] for stays in (False, True))
        return Manifest(arrays=tuple(shared)), Manifest(arrays=tuple(own))

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
        if private is not None:
            raise UnknownTaskError(
                f"task {self.task.name!r}: --dp-sgd needs torch: expected an edge without --light"
            )
        data, network = self.load(client, partition), self.model_from(base, manifest, local)
        _, own = self._split(network.layers)
        chosen = training_settings(settings, self.task.defaults)
        seed = edge_seed(settings.seed, round_number, client)
        names = [spec.name for spec in manifest.arrays if spec.role == "parameter"]
        observation = observation_of(
            correction, settings.clip_gradients, chosen.logit_adjustment, Layout(manifest, names)
        )
        observation.begin([network.arrays[name] for name in names])

        def train() -> TrainReport:
            with observed(observation):
                return self.task.train(network, data, chosen, seed, cancelled)

        return make_update(
            self.task,
            network,
            data,
            base,
            train,
            lambda trained: flatten(trained.arrays, manifest),
            allocate,
            observation,
            None if own is None else (lambda trained: flatten(trained.arrays, own)),
        )
