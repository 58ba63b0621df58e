"""The built-in tasks and how others are added."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.builders import partition, training_settings

pytest.importorskip("torch")

import torch
from torch import nn

from fl_edge.errors import CancelledError, DivergedError, PayloadError, UnknownTaskError
from fl_edge.tasks.cifar10 import Cifar10Task
from fl_edge.tasks.image import ImageTask, initialize_weights
from fl_edge.tasks.registry import load_task, names
from fl_edge.tasks.sgd import sgd
from fl_edge.tasks.task import Examples
from fl_edge.training import local_training

pytestmark = pytest.mark.edge

SEVEN = Path(__file__).parents[4] / "examples" / "seven.png"
FASHION = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def _settled() -> None:
    local_training.configure_torch()


def never() -> bool:
    return False


# --- names


def test_names_are_known_without_importing_torch() -> None:
    code = (
        "import sys, fl_edge.tasks.registry as t; print(*t.names()); "
        "print({'torch', 'PIL', 'sklearn'} & set(sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = said.stdout.splitlines()
    assert first.split()[:4] == ["digits", "mnist", "fashion-mnist", "cifar10"]
    assert second == "set()"


def test_an_unknown_task_is_answered_with_the_known_ones() -> None:
    with pytest.raises(
        UnknownTaskError, match=r"'nope' is unknown here, expected one of: digits, mnist, fash"
    ):
        load_task("nope")


PLUG_IN = """
from fl_edge.tasks.digits import DigitsTask

class Good(DigitsTask):
    name = "good"

class Broken:
    def __init__(self):
        raise OSError("no licence")

a_list = [1]
"""


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another distribution with tasks, as pip would install it."""
    (tmp_path / "tasks_of_others.py").write_text(PLUG_IN)
    info = tmp_path / "tasks_of_others-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tasks-of-others\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[fl_mqtt.tasks]\ngood = tasks_of_others:Good\nbroken = tasks_of_others:Broken\n"
        "gone = tasks_of_others:Gone\nodd = tasks_of_others:a_list\ndigits = tasks_of_others:Broken\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("plug_in")
def test_other_distributions_add_tasks() -> None:
    assert names() == ("digits", "mnist", "fashion-mnist", "cifar10", "broken", "gone", "good", "odd")
    assert load_task("good").name == "good"
    # What is built in cannot be replaced.
    assert type(load_task("digits")).__module__ == "fl_edge.tasks.digits"


@pytest.mark.usefixtures("plug_in")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", "'broken' cannot be created: OSError.'no licence'"),
        ("gone", r"'gone' \(tasks_of_others:Gone\) cannot be loaded: AttributeError"),
        ("odd", "'odd' is a list, expected a fl_edge.tasks.task.Task"),
    ],
)
def test_a_task_that_cannot_be_loaded_says_why(name: str, message: str) -> None:
    with pytest.raises(UnknownTaskError, match=message):
        load_task(name)


# --- models


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


# --- data


def test_a_part_is_standardised_and_laid_out_for_convolutions() -> None:
    data = load_task("digits").load(partition(count=1), None)
    assert data.holdout is not None
    assert (data.train.inputs.shape, data.holdout.inputs.shape) == ((1150, 1, 8, 8), (288, 1, 8, 8))
    assert data.train.inputs.dtype == torch.float32
    assert data.train.inputs.is_contiguous(memory_format=torch.channels_last)
    assert abs(float(data.train.inputs.mean())) < 0.02
    assert float(data.train.inputs.std()) == pytest.approx(1, abs=0.02)


def test_without_a_holdout_there_is_none() -> None:
    assert load_task("digits").load(partition(holdout=0.0), None).holdout is None


def test_parts_and_the_test_split_are_disjoint() -> None:
    task = load_task("digits")
    parts = [task.load(partition(i), None) for i in range(20)]
    seen = [d.train.inputs for d in parts] + [d.holdout.inputs for d in parts if d.holdout is not None]
    rows = torch.cat([*seen, task.load_test(None).inputs]).reshape(-1, 64)
    assert len(rows) == 1797
    # The data set itself has no two equal images.
    assert len(torch.unique(rows, dim=0)) == 1797


def test_a_partition_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="examples: 5000, but the data set has only 1438"):
        load_task("digits").load(partition(examples=5000), None)


@pytest.mark.skipif(not FASHION.is_dir(), reason="apt install dataset-fashion-mnist")
def test_fashion_mnist_is_standardised_with_its_own_constants() -> None:
    task = load_task("fashion-mnist")
    data = task.load(partition(count=1, holdout=0.0), None)
    assert len(data.train) == 60_000
    assert abs(float(data.train.inputs.mean())) < 1e-3
    assert float(data.train.inputs.std()) == pytest.approx(1, abs=1e-3)
    assert len(task.load_test(None)) == 10_000


# --- training


def test_sgd_is_to_the_bit_what_pytorchs_is() -> None:
    task = load_task("digits")
    data = task.load(partition(), None).train
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

    data = load_task("digits").load(partition(), None)
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
            task.load(partition(), None),
            training_settings(epochs=50, lr=1e6),
            np.random.SeedSequence(0),
            never,
        )


def test_evaluation_counts_every_example_once() -> None:
    task = load_task("digits")
    model, examples = task.model(0), task.load_test(None)
    scores = task.evaluate(model, examples)
    with torch.no_grad():
        logits = model(examples.inputs)
    assert scores.examples == 359
    assert scores.accuracy == float((logits.argmax(1) == examples.labels).double().mean())
    assert scores.loss == pytest.approx(float(nn.functional.cross_entropy(logits, examples.labels)), rel=1e-5)


# --- the reference workload, in one process


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """Twenty edges, ten a round, ten epochs, ten rounds of federated averaging."""
    local_training.configure_torch()
    task, cohorts = load_task("digits"), np.random.default_rng(0)
    manifest, weights = local_training.initial_weights(task, 0)
    for number in range(1, 11):
        total, examples = np.zeros(len(weights)), 0
        for k in cohorts.permutation(20)[:10]:
            update = local_training.train_update(
                task,
                task.load(partition(int(k)), None),
                weights,
                manifest,
                training_settings(epochs=10),
                number,
                str(k),
                never,
            )
            total += update.examples * update.delta.astype(np.float64)
            examples += update.examples
        weights = (weights + total / examples).astype(np.float32)
    return local_training.model_from(task, weights, manifest)


def test_digits_reach_95_percent(trained: nn.Module) -> None:
    task = load_task("digits")
    assert task.evaluate(trained, task.load_test(None)).accuracy >= 0.95


def test_the_example_is_a_seven(trained: nn.Module) -> None:
    probabilities = load_task("digits").predict(trained, SEVEN.read_bytes())
    assert list(probabilities) == list("0123456789")
    assert sum(probabilities.values()) == pytest.approx(1)
    assert probabilities["7"] > 0.9


def test_enlarged_digits_are_recognised_dark_on_light_and_light_on_dark(trained: nn.Module) -> None:
    import io

    from PIL import Image

    from fl_edge.data import datasets

    task, data = load_task("digits"), datasets.read("digits", "test")
    for invert in (False, True):
        right = 0
        for image, label in zip(data.images[:100, :, :, 0], data.labels[:100], strict=True):
            grey = np.clip(image * (255 / 16), 0, 255).astype(np.uint8)
            page = Image.new("L", (200, 160), 0)
            page.paste(Image.fromarray(grey).resize((96, 96), Image.Resampling.BICUBIC), (70, 30))
            shown = np.asarray(page)
            buffer = io.BytesIO()
            Image.fromarray(255 - shown if invert else shown).save(buffer, "PNG")
            probabilities = task.predict(trained, buffer.getvalue())
            right += max(probabilities, key=probabilities.__getitem__) == str(label)
        assert right >= 90


def test_what_is_no_picture_is_refused(trained: nn.Module) -> None:
    with pytest.raises(PayloadError):
        load_task("digits").predict(trained, b"seven")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_the_other_tasks_answer_with_their_labels(name: str) -> None:
    task = load_task(name)
    probabilities = task.predict(task.model(0), SEVEN.read_bytes())
    assert isinstance(task, ImageTask)
    assert tuple(probabilities) == task.labels
    assert sum(probabilities.values()) == pytest.approx(1)
    assert Cifar10Task.labels[3] == "cat"
