"""Image tasks: their models, data and first weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import partition

pytest.importorskip("torch")
import torch
from torch import nn

from fl_edge.tasks.image import initialize_weights
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.task import LoadContext
from fl_edge.training import local_training

pytestmark = pytest.mark.edge

FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def _settled() -> None:
    local_training.configure_torch()


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("digits", (1, 8, 8), 53_002),
        ("mnist", (1, 28, 28), 431_080),
        ("fashion-mnist", (1, 28, 28), 431_080),
        ("cifar10", (3, 32, 32), 878_538),
    ],
)
def test_models_have_two_convolutions_and_their_size(
    name: str, shape: tuple[int, ...], parameters: int
) -> None:
    task = load_task(name)
    model = task.model(0)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(isinstance(layer, nn.Conv2d) for layer in model.modules()) == 2
    assert model(torch.zeros(5, *shape)).shape == (5, 10)
    assert set(task.shared(model)) == {name for name, _ in model.named_parameters()}


def test_first_weights_depend_on_the_seed_alone_and_leave_torchs_chance_alone() -> None:
    task = load_task("digits")
    torch.manual_seed(1)
    one = local_training.initial_weights(task, 5)[1]
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    assert (local_training.initial_weights(task, 5)[1] == one).all()
    assert (local_training.initial_weights(task, 6)[1] != one).any()


def test_first_weights_are_spread_like_pytorchs_own() -> None:
    drawn = load_task("fashion-mnist").model(0).state_dict()
    torch.manual_seed(0)
    own = {"conv1": nn.Conv2d(1, 20, 5), "conv2": nn.Conv2d(20, 50, 5), "fc1": nn.Linear(800, 500)}
    for name, layer in own.items():
        for kind, value in layer.state_dict().items():
            bound = value.abs().max()
            assert drawn[f"{name}.{kind}"].abs().max() == pytest.approx(float(bound), rel=0.2)
            assert drawn[f"{name}.{kind}"].std() == pytest.approx(float(value.std()), rel=0.25)


def test_a_layer_that_first_weights_are_not_known_for_is_our_bug() -> None:
    with pytest.raises(AssertionError, match="BatchNorm"):
        initialize_weights(nn.BatchNorm2d(3), torch.Generator())


def test_a_part_is_standardised_and_laid_out_for_convolutions() -> None:
    data = load_task("digits").load(LoadContext("0", partition(count=1), None))
    assert data.holdout is not None
    assert (data.train.inputs.shape, data.holdout.inputs.shape) == ((1150, 1, 8, 8), (288, 1, 8, 8))
    assert data.train.inputs.dtype == torch.float32
    assert data.train.inputs.is_contiguous(memory_format=torch.channels_last)
    assert abs(float(data.train.inputs.mean())) < 0.02
    assert float(data.train.inputs.std()) == pytest.approx(1, abs=0.02)


def test_without_a_holdout_there_is_none() -> None:
    assert load_task("digits").load(LoadContext("0", partition(holdout=0.0), None)).holdout is None


def test_parts_and_the_test_split_are_disjoint() -> None:
    task = load_task("digits")
    parts = [task.load(LoadContext("0", partition(i), None)) for i in range(20)]
    seen = [d.train.inputs for d in parts] + [d.holdout.inputs for d in parts if d.holdout is not None]
    rows = torch.cat([*seen, task.load_test(None).inputs]).reshape(-1, 64)
    assert len(rows) == 1797
    # The data set itself has no two equal images.
    assert len(torch.unique(rows, dim=0)) == 1797


def test_a_partition_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="examples: 5000, but the data set has only 1438"):
        load_task("digits").load(LoadContext("0", partition(examples=5000), None))


@pytest.mark.skipif(not FASHION.is_dir(), reason="apt install dataset-fashion-mnist")
def test_fashion_mnist_is_standardised_with_its_own_constants() -> None:
    task = load_task("fashion-mnist")
    data = task.load(LoadContext("0", partition(count=1, holdout=0.0), None))
    assert len(data.train) == 60_000
    assert abs(float(data.train.inputs.mean())) < 1e-3
    assert float(data.train.inputs.std()) == pytest.approx(1, abs=1e-3)
    assert len(task.load_test(None)) == 10_000


def test_evaluation_counts_every_example_once() -> None:
    task = load_task("digits")
    model, examples = task.model(0), task.load_test(None)
    scores = task.evaluate(model, examples)
    with torch.no_grad():
        logits = model(examples.inputs)
    assert scores.examples == 359
    assert scores.metrics["accuracy"] == float((logits.argmax(1) == examples.labels).double().mean())
    assert scores.loss == pytest.approx(float(nn.functional.cross_entropy(logits, examples.labels)), rel=1e-5)
