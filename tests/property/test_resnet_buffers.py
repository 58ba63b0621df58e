"""ResNet-18, really trained by edges with unlike data: each strategy averages its running statistics as it says."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_aggregator.aggregation.combining import Combiner, first_state
from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.strategies.parts import CoordinateCombination, GramCombination
from fl_aggregator.aggregation.strategies.presets import PRESETS
from fl_aggregator.aggregation.validation import CheckedSection
from fl_aggregator.configuration.settings import Settings
from fl_shared.tensors.manifest import Manifest, Vector, magnitude, unflatten
from tests.support.builders import never, partition, training_settings, update_metadata

pytest.importorskip("torch")

import torch

from fl_edge.tasks.task import Examples, LoadContext, LocalData
from fl_edge.training import local_training
from tests.support.optimised_task import OptimisedTask, first

pytestmark = [pytest.mark.edge, pytest.mark.long]

EXAMPLES = (8, 16, 24, 8, 32, 16, 24)
"""Of each edge; seven are what Bulyan needs for one bad edge."""
NEEDS = {"krum": "krum:bad=1", "multi-krum": "multi-krum:bad=1", "bulyan": "bulyan:bad=1"}


class ResNetTask(OptimisedTask):
    """Edge k has pictures whose brightness and contrast grow with k."""

    def __init__(self) -> None:
        super().__init__(self._train)

    def model(self, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        from torchvision.models import resnet18  # seconds, and `make test` only collects this file

        network: torch.nn.Module = resnet18(num_classes=3)
        return network

    def load(self, context: LoadContext) -> LocalData:
        k, chance = int(context.client), torch.Generator().manual_seed(int(context.client))
        pictures = torch.randn(EXAMPLES[k], 3, 32, 32, generator=chance) * (1 + k) + k
        return LocalData(Examples(pictures, torch.arange(EXAMPLES[k]) % 3), None)

    def _train(self, model: torch.nn.Module, examples: Examples, _settings: object) -> int:
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        inputs, labels = examples.tensors()
        for step in range(0, len(examples), 8):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs[step : step + 8]), labels[step : step + 8])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return len(examples) // 8


@pytest.fixture(scope="module")
def trained() -> tuple[Manifest, Vector, list[Vector]]:
    """The manifest, the base, and the change of each edge."""
    task = ResNetTask()
    manifest, base = first(task)
    changes = [
        local_training.train_update(
            task, task.load(LoadContext(str(k), partition(), None)), base, manifest, training_settings(), 1, str(k),
            never,
        ).delta
        for k in range(len(EXAMPLES))
    ]  # fmt: skip
    return manifest, base, changes


def buffers(vector: Vector, manifest: Manifest) -> NDArray[np.float64]:
    """All values of buffers, one after another."""
    arrays = unflatten(vector, manifest)
    return np.concatenate(
        [arrays[spec.name].ravel() for spec in manifest.arrays if spec.role == "buffer"]
    ).astype(float)


@pytest.mark.parametrize("name", PRESETS)
def test_running_statistics_are_the_mean_of_what_came(
    name: str, trained: tuple[Manifest, Vector, list[Vector]]
) -> None:
    """By examples in sums; in combinations by distance with weights that all buffers share; else by coordinate."""
    manifest, base, changes = trained
    settings = Settings(
        clients=7,
        per_round=7,
        quorum=7,
        strategy=NEEDS.get(name, name),
        max_buffer=1e6,
        lr=0.01,
        epochs=1,
        momentum=0.0,
    )
    strategy = registry.load(settings)
    combiner = Combiner(strategy, manifest, settings)
    zeros = CheckedSection(np.zeros_like(base), 0.0)
    for k, change in enumerate(changes):
        metadata = update_metadata(
            client=str(k), examples=EXAMPLES[k], steps=EXAMPLES[k] // 8, before={"loss": 1.0}
        )
        combiner.add(metadata, change, magnitude(change), {"control": zeros})
    made, _ = combiner.next_model(
        1,
        base,
        first_state(strategy, manifest.values),
        lambda client: changes[int(client)],
        (0, sum(EXAMPLES)),
    )
    variances = [array for key, array in unflatten(made, manifest).items() if key.endswith("running_var")]
    assert len(variances) == 20
    assert all((array >= 0).all() for array in variances)
    came = np.array([buffers(base + change, manifest) for change in changes])
    found, scale = buffers(made, manifest), np.abs(came).max(axis=0) + 1.0
    if isinstance(strategy.combine, CoordinateCombination):
        assert (found >= came.min(axis=0) - 1e-5 * scale).all()
        assert (found <= came.max(axis=0) + 1e-5 * scale).all()
        if name == "median":
            assert (np.abs(found - np.median(came, axis=0)) / scale).max() < 1e-5
        return
    if isinstance(strategy.combine, GramCombination):
        weights = np.linalg.lstsq((came / scale).T, found / scale, rcond=None)[0]
        assert abs(weights.sum() - 1) < 1e-4
        assert weights.min() > -1e-4
    else:
        weights = np.array(EXAMPLES) / sum(EXAMPLES)
    assert (np.abs(found - weights @ came) / scale).max() < 1e-5
