"""Executes a `DenseTask` in NumPy, without torch (see `executor.Executor`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fl_edge.tasks.dense import DenseTask
from fl_edge.tasks.dense_network import DenseNetwork
from fl_edge.tasks.steps import observed
from fl_edge.tasks.task import TrainReport
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.corrections.observation import Layout, observation_of
from fl_edge.training.executor import TrainedUpdate, VectorAllocator, edge_seed, training_settings
from fl_edge.training.task_executor import TaskExecutor
from fl_edge.training.update import check_manifests_match, make_update
from fl_shared.protocol.messages import Partition, TrainingRequest
from fl_shared.tensors.manifest import Manifest, Vector, flatten, unflatten


class LightExecutor(TaskExecutor):
    """The executor of a task with a dense model."""

    task: DenseTask

    def __init__(self, task: DenseTask, data_dir: Path | None) -> None:
        super().__init__(task, data_dir)

    def own_manifest(self) -> Manifest:
        return self.task.layers().manifest

    def model_from(self, vector: Vector, manifest: Manifest) -> DenseNetwork:
        layers = self.task.layers_for(manifest)
        check_manifests_match(self.task, manifest, layers.manifest)
        return DenseNetwork(layers, unflatten(vector, manifest))

    def initial_weights(self, seed: int, allocate: VectorAllocator) -> Manifest:
        layers = self.task.layers()
        allocate(layers.manifest.values)[:] = flatten(layers.first_weights(seed), layers.manifest)
        return layers.manifest

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
    ) -> TrainedUpdate:
        data, network = self.load(client, partition), self.model_from(base, manifest)
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
        )
