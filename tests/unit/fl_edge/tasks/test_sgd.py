"""Local training by SGD."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.builders import partition, training_settings

pytest.importorskip("torch")
import torch
from torch import nn

from fl_edge.errors import CancelledError, DivergedError
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.sgd import batches, sgd
from fl_edge.tasks.task import Examples, LoadContext
from fl_edge.training import local_training
from tests.support.builders import never

pytestmark = pytest.mark.edge


@pytest.fixture(autouse=True)
def _settled() -> None:
    local_training.configure_torch()


def test_sgd_is_to_the_bit_what_pytorchs_is() -> None:
    task = load_task("digits")
    data = task.load(LoadContext("0", partition(), None)).train
    for momentum in (0.0, 0.9):
        ours, theirs = task.model(0), task.model(0)
        chance = np.random.SeedSequence(3)
        sgd(ours, data, training_settings(momentum=momentum), chance, never)
        order = torch.Generator().manual_seed(int(chance.generate_state(1, np.uint64)[0]))
        optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=momentum)
        for _ in range(2):
            for batch in torch.split(torch.randperm(len(data), generator=order), 32):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(theirs(data.inputs[batch]), data.labels[batch])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        for name, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[name], value)


@pytest.mark.parametrize(
    ("examples", "batch", "steps"), [(58, 32, 4), (58, 58, 2), (58, 1000, 2), (58, 1, 116)]
)
def test_every_example_is_used_in_every_epoch(examples: int, batch: int, steps: int) -> None:
    seen: list[int] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.extend(int(v) for v in x.flatten())
            return self.layer(x)  # type: ignore[no-any-return]

    data = Examples(torch.arange(examples).float().reshape(-1, 1), torch.zeros(examples, dtype=torch.int64))
    report = sgd(
        Counting(), data, training_settings(batch_size=batch, lr=1e-9), np.random.SeedSequence(0), never
    )
    assert report.steps == steps
    assert sorted(seen[:examples]) == sorted(seen[examples:]) == list(range(examples))
    assert seen[:examples] != seen[examples:]


def test_the_loss_reported_is_the_mean_of_the_last_epoch() -> None:
    data = Examples(torch.zeros(5, 1), torch.tensor([0, 0, 0, 0, 1]))
    model = nn.Linear(1, 2)
    nn.init.constant_(model.bias, 0)
    report = sgd(model, data, training_settings(lr=1e-12, batch_size=4), np.random.SeedSequence(0), never)
    # Equal logits: log 2 for each example, whatever batch it is in.
    assert report.loss == pytest.approx(np.log(2), rel=1e-6)


def test_a_cancel_is_seen_at_the_next_step() -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked == 3

    data = load_task("digits").load(LoadContext("0", partition(), None))
    with pytest.raises(CancelledError):
        load_task("digits").train(
            load_task("digits").model(0),
            data,
            training_settings(epochs=100),
            np.random.SeedSequence(0),
            cancelled,
        )
    assert asked == 3


def test_training_that_diverges_says_so() -> None:
    task = load_task("digits")
    with pytest.raises(
        DivergedError, match=r"the loss is (nan|inf) in epoch \d+ of 50 \(lr 1e\+06, momentum 0.9"
    ):
        task.train(
            task.model(0),
            task.load(LoadContext("0", partition(), None)),
            training_settings(epochs=50, lr=1e6),
            np.random.SeedSequence(0),
            never,
        )


class Normed(nn.Module):
    """A BatchNorm over vectors, which cannot take a single example in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(3), nn.Linear(3, 2)
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        result: torch.Tensor = self.last(self.norm(x))
        return result


@pytest.mark.parametrize(
    ("examples", "batch", "sizes"),
    [(9, 4, [4, 5]), (8, 4, [4, 4]), (10, 4, [4, 4, 2]), (1, 4, [1]), (3, 1, [1, 2])],
)
def test_batch_norm_gets_no_last_batch_of_a_single_example(
    examples: int, batch: int, sizes: list[int]
) -> None:
    model = Normed()
    before = model.norm.running_mean.clone()  # type: ignore[union-attr]
    inputs = torch.randn(examples, 3, generator=torch.Generator().manual_seed(0))
    data = Examples(inputs, torch.zeros(examples, dtype=torch.int64))
    settings = training_settings(epochs=1, batch_size=batch)
    sgd(model, data, settings, np.random.SeedSequence(0), never)
    assert model.sizes == sizes
    # With single examples it normalises by its running statistics, which then stay.
    assert torch.equal(before, model.norm.running_mean) == (1 in sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("examples", range(60))
@pytest.mark.parametrize("size", [2, 3, 8, 32])
def test_batches_have_every_example_once_and_never_a_last_one_alone(examples: int, size: int) -> None:
    found = batches(examples, size)
    assert [k for batch in found for k in range(examples)[batch]] == list(range(examples))
    sizes = [batch.stop - batch.start for batch in found]
    assert 1 not in sizes or examples == 1
    assert max(sizes, default=0) <= size + 1
