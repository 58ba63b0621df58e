"""The reference workload in one process: accuracy, and predictions of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.builders import partition, training_settings

pytest.importorskip("torch")
from torch import nn

from fl_edge.errors import PayloadError
from fl_edge.tasks.cifar10 import Cifar10Task
from fl_edge.tasks.image import ImageTask
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.task import LoadContext
from fl_edge.training import local_training
from tests.support.builders import never

pytestmark = pytest.mark.edge

SEVEN = Path(__file__).parents[4] / "examples" / "seven.png"


@pytest.fixture(autouse=True)
def _settled() -> None:
    local_training.configure_torch()


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    """Twenty edges, five a round, ten epochs, six rounds of federated averaging."""
    local_training.configure_torch()
    task, cohorts = load_task("digits"), np.random.default_rng(0)
    manifest, weights = local_training.initial_weights(task, 0)
    for number in range(1, 7):
        total, examples = np.zeros(len(weights)), 0
        for k in cohorts.permutation(20)[:5]:
            update = local_training.train_update(
                task,
                task.load(LoadContext("0", partition(int(k)), None)),
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
    assert task.evaluate(trained, task.load_test(None)).metrics["accuracy"] >= 0.95


def test_the_example_is_a_seven(trained: nn.Module) -> None:
    probabilities = load_task("digits").predict(trained, SEVEN.read_bytes())["probabilities"]
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
            right += task.predict(trained, buffer.getvalue())["label"] == str(label)
        assert right >= 90


def test_what_is_no_picture_is_refused(trained: nn.Module) -> None:
    with pytest.raises(PayloadError):
        load_task("digits").predict(trained, b"seven")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_the_other_tasks_answer_with_their_labels(name: str) -> None:
    task = load_task(name)
    probabilities = task.predict(task.model(0), SEVEN.read_bytes())["probabilities"]
    assert isinstance(task, ImageTask)
    assert tuple(probabilities) == task.labels
    assert sum(probabilities.values()) == pytest.approx(1)
    assert Cifar10Task.labels[3] == "cat"
