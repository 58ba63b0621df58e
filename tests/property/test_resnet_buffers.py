"""A residual network, really trained by edges with unlike data: each strategy averages its running statistics right.

A small one with the layers of ResNet-18, and ResNet-18 itself (11.2 M values with three classes).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_aggregator.aggregation.combining import Combiner, State, first_state
from fl_aggregator.aggregation.strategies import registry
from fl_aggregator.aggregation.strategies.coordinates import Median
from fl_aggregator.aggregation.strategies.optimizers import Sgd
from fl_aggregator.aggregation.strategies.parts import CoordinateCombination, GramCombination, Strategy
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

pytestmark = pytest.mark.edge

EXAMPLES = (8, 16, 24, 8, 32, 16, 24)
"""Of each edge; seven are what Bulyan needs for one bad edge."""
NEEDS = {"krum": "krum:bad=1", "multi-krum": "multi-krum:bad=1", "bulyan": "bulyan:bad=1"}


class Block(torch.nn.Module):
    """Two convolutions beside a shortcut, as those of ResNet-18 that halve the picture."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(before, after, 3, 2, 1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(after)
        self.conv2 = torch.nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = torch.nn.BatchNorm2d(after)
        self.downsample = torch.nn.Sequential(
            torch.nn.Conv2d(before, after, 1, 2, bias=False), torch.nn.BatchNorm2d(after)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        inner = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(inputs)))))
        return torch.relu(inner + self.downsample(inputs))


def small() -> torch.nn.Module:
    """About 5,000 parameters."""
    nn = torch.nn
    begin = (nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(
        *begin, Block(8, 12), Block(12, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)
    )


def large() -> torch.nn.Module:
    """ResNet-18."""
    from torchvision.models import resnet18  # seconds, and `make test` only collects this

    network: torch.nn.Module = resnet18(num_classes=3)
    return network


class ResNetTask(OptimisedTask):
    """Edge k has pictures whose brightness and contrast grow with k."""

    def __init__(self, network: Callable[[], torch.nn.Module]) -> None:
        super().__init__(self._train)
        self._network = network

    def model(self, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return self._network()

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


@pytest.fixture(scope="module", params=[small, pytest.param(large, marks=pytest.mark.long)])
def trained(request: pytest.FixtureRequest) -> tuple[Manifest, Vector, list[Vector]]:
    """The manifest, the base, and the change of each edge."""
    task = ResNetTask(request.param)
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


def next_model(
    strategy: Strategy,
    settings: Settings,
    number: int,
    manifest: Manifest,
    base: Vector,
    state: State,
    changes: list[Vector],
) -> tuple[Vector, dict[str, Vector]]:
    combiner = Combiner(strategy, manifest, settings)
    zeros = CheckedSection(np.zeros_like(base), 0.0)
    for k, change in enumerate(changes):
        metadata = update_metadata(
            client=str(k), examples=EXAMPLES[k], steps=EXAMPLES[k] // 8, before={"loss": 1.0}
        )
        combiner.add(metadata, change, magnitude(change), {"control": zeros})
    heard = (sum(EXAMPLES) if number > 1 else 0, sum(EXAMPLES))
    return combiner.next_model(number, base, state, lambda client: changes[int(client)], heard)


@pytest.mark.parametrize("name", PRESETS)
def test_running_statistics_are_the_mean_of_what_came(
    name: str, trained: tuple[Manifest, Vector, list[Vector]]
) -> None:
    """By examples in sums; in combinations by distance with weights that all buffers share; else by coordinate.

    In two rounds, whose edges end with the same weights. No optimizer and no correction touches them.
    """
    manifest, first_base, changes = trained
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
    ends = [first_base + change for change in changes]
    base, state = first_base, first_state(strategy, manifest.values)
    for number in (1, 2):
        sent = [end - base for end in ends]
        made, next_state = next_model(strategy, settings, number, manifest, base, state, sent)
        assert np.isfinite(made).all()
        assert all(np.isfinite(vector).all() for vector in next_state.values())
        plain = Strategy(strategy.combine, Sgd())
        of_last = {name: vector for name, vector in state.items() if name in plain.state}
        without, _ = next_model(plain, settings, number, manifest, base, of_last, sent)
        np.testing.assert_array_equal(buffers(made, manifest), buffers(without, manifest))
        for key, value in strategy.state.items():
            assert (buffers(next_state[key], manifest) == np.float32(value)).all(), "a vector of parameters"
        check_statistics(strategy, manifest, ends, made)
        base, state = made, next_state


def check_statistics(strategy: Strategy, manifest: Manifest, ends: list[Vector], made: Vector) -> None:
    variances = [array for key, array in unflatten(made, manifest).items() if key.endswith("running_var")]
    assert len(variances) == sum(spec.name.endswith("running_var") for spec in manifest.arrays) >= 7
    assert all((array >= 0).all() for array in variances)
    came = np.array([buffers(end, manifest) for end in ends])
    found, scale = buffers(made, manifest), np.abs(came).max(axis=0) + 1.0
    if isinstance(strategy.combine, CoordinateCombination):
        assert (found >= came.min(axis=0) - 1e-5 * scale).all()
        assert (found <= came.max(axis=0) + 1e-5 * scale).all()
        if isinstance(strategy.combine, Median):
            assert (np.abs(found - np.median(came, axis=0)) / scale).max() < 1e-5
        return
    if isinstance(strategy.combine, GramCombination):
        weights = np.linalg.lstsq((came / scale).T, found / scale, rcond=None)[0]
        assert abs(weights.sum() - 1) < 1e-4
        assert weights.min() > -1e-4
    else:
        weights = np.array(EXAMPLES) / sum(EXAMPLES)
    assert (np.abs(found - weights @ came) / scale).max() < 1e-5
