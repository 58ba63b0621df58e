"""Trains and evaluates a task in torch, from flat vectors to flat vectors. Keeps no state between calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import nn

from fl_edge.tasks.task import Examples, LocalData, Scores, Task, TrainReport
from fl_edge.training.corrections.correction import CorrectionRequest
from fl_edge.training.corrections.observation import Layout, observation_of, observing_torch
from fl_edge.training.example_level import PrivateSgd
from fl_edge.training.executor import TrainedUpdate, VectorAllocator, edge_seed
from fl_edge.training.generator import GENERATOR
from fl_edge.training.local_part import ALL_SHARED, LocalPart
from fl_edge.training.precision import arithmetic
from fl_edge.training.task_results import checked_scores
from fl_edge.training.update import check_manifests_match, make_update
from fl_shared.protocol.messages import Precision, TrainingSettings
from fl_shared.tensors.manifest import Manifest, Vector, flatten, manifest_of, unflatten

BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def configure_torch() -> None:
    """Makes training repeatable and fast in this process. Call it once, before any other use of torch.

    It sets one thread, since a worker has one core and the number of threads changes the bits. Denormal numbers
    become zero, since arithmetic on them is 200 times slower, and small gradients have many of them.
    """
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def initial_weights(task: Task, seed: int, part: LocalPart = ALL_SHARED) -> tuple[Manifest, Vector]:
    """Returns the first weights for round 0 and their manifest: a pure function of the task, ``seed`` and ``part``."""
    model = build_model(task, seed)
    manifest = shared_manifest(task, model, part)
    return manifest, _vector(model, manifest)


def build_model(task: Task, seed: int, manifest: Manifest | None = None) -> nn.Module:
    """Returns the task's model with its first weights, for weights with ``manifest`` if that is given."""
    with GENERATOR.seeded(seed):
        return task.model(seed) if manifest is None else task.model_for(manifest, seed)


def local_names(task: Task, model: nn.Module, part: LocalPart) -> tuple[str, ...]:
    """Returns the names of the arrays of ``model`` that stay on the edge. Raises ``TaskOptionsError``."""
    state = model.state_dict()
    batchnorm = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if isinstance(module, BATCH_NORMS)
        for name in module.state_dict()
    }
    counters = (name for name, value in state.items() if not value.is_floating_point())
    return part.names(task.shared(model), batchnorm, counters)


def local_manifest(task: Task, model: nn.Module, part: LocalPart) -> Manifest | None:
    """Returns the manifest of the arrays of ``model`` that stay on the edge; null if there are none."""
    names = local_names(task, model, part)
    return _manifest(model, names) if names else None


def shared_manifest(task: Task, model: nn.Module, part: LocalPart = ALL_SHARED) -> Manifest:
    """Returns the manifest of the arrays of ``model`` that ``task`` shares, and that do not stay on the edge."""
    local = local_names(task, model, part) if part.patterns else ()
    return _manifest(model, [name for name in task.shared(model) if name not in local])


def _manifest(model: nn.Module, names: Sequence[str]) -> Manifest:
    state = model.state_dict()
    learnt = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return manifest_of(
        # Only the shapes matter, so nothing is copied.
        {name: np.broadcast_to(np.float32(0), tuple(state[name].shape)) for name in names},
        buffers=[name for name in names if name not in learnt],
    )


def model_from(
    task: Task,
    vector: Vector,
    manifest: Manifest,
    device: torch.device | str = "cpu",
    seed: int = 0,
    part: LocalPart = ALL_SHARED,
    local: Vector | None = None,
) -> nn.Module:
    """Returns the task's model on ``device`` with the weights in ``vector``.

    Arrays that are not shared come from ``seed``, and those of ``part`` from ``local`` if that is given.

    Raises ``ManifestMismatchError``, which names the first array that differs, and ``ValueError`` if ``vector`` is
    too short or too long for ``manifest``, or ``local`` for ``part``.
    """
    model = build_model(task, seed, manifest)
    check_manifests_match(task, manifest, shared_manifest(task, model, part))
    arrays = unflatten(vector, manifest)
    if local is not None and (own := local_manifest(task, model, part)) is not None:
        arrays |= unflatten(local, own)
    # Not into the tensors of state_dict(), which may be copies.
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
    return model.to(device)


def train_update(
    task: Task,
    data: LocalData,
    base: Vector,
    manifest: Manifest,
    settings: TrainingSettings,
    round_number: int,
    client: str,
    cancelled: Callable[[], bool],
    device: torch.device | str = "cpu",
    allocate: VectorAllocator | None = None,
    correction: CorrectionRequest | None = None,
    clip_gradients: float = 0.0,
    precision: Precision = "float32",
    part: LocalPart = ALL_SHARED,
    local: Vector | None = None,
    private: PrivateSgd | None = None,
) -> TrainedUpdate:
    """Trains from ``base`` on ``data``. The result is a pure function of the arguments, except for ``seconds``.

    ``allocate`` allocates the delta; None: a new array. ``correction`` and ``clip_gradients``: what is done to the
    gradients. ``precision``: of the products. ``part`` and ``local``: see `model_from`. ``private`` takes the steps,
    with chance of its own; null: the task does. Metrics: see `make_update`. Raises ``CancelledError``,
    ``DivergedError``, ``ManifestMismatchError``, ``TaskError``.
    """
    rng_seed = edge_seed(settings.seed, round_number, client)
    model = model_from(task, base, manifest, device, settings.seed, part, local)
    own = local_manifest(task, model, part)

    def cancelled_or_waiting() -> bool:
        GENERATOR.give_way()
        return cancelled()

    shared = {spec.name for spec in manifest.arrays}
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and name in shared
    }
    layout = Layout(manifest, tuple(parameters))
    steps = None if private is None else private.train
    observation = observation_of(correction, clip_gradients, settings.logit_adjustment, layout, device, steps)
    if private is not None:
        private.begin(manifest, lambda: _vector(model, manifest))

    def shared_of(trained: nn.Module) -> Vector:
        vector = _vector(trained, manifest)
        return vector if private is None else private.checked(vector)

    def train() -> TrainReport:
        with (
            # For models with dropout.
            GENERATOR.seeded(int(rng_seed.spawn(1)[0].generate_state(1, np.uint64)[0])),
            observing_torch(observation, list(parameters.values())),
            arithmetic(precision, device),
        ):
            return task.train(model, data, settings, rng_seed, cancelled_or_waiting)

    return make_update(
        task,
        model,
        data,
        base,
        train,
        shared_of,
        allocate or (lambda values: np.empty(values, np.float32)),
        observation,
        None if own is None else (lambda trained: _vector(trained, own)),
    )


def evaluate(
    task: Task, vector: Vector, manifest: Manifest, examples: Examples, device: torch.device | str = "cpu"
) -> Scores:
    """Returns the scores of the model in ``vector`` on ``examples``. Raises ``DivergedError`` and ``TaskError``."""
    return checked_scores(task, task.evaluate(model_from(task, vector, manifest, device), examples))


def _vector(model: nn.Module, manifest: Manifest) -> Vector:
    state = model.state_dict()
    return flatten({one.name: state[one.name].float().cpu().numpy() for one in manifest.arrays}, manifest)
