"""``images``: pictures in folders, with a CNN, ResNet-18, and its head alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.builders import partition, training_request

pytest.importorskip("torch")
import torch
from safetensors.torch import save_file
from torch import nn

from fl_edge.errors import (
    DataCorruptError,
    DataMismatchError,
    DataMissingError,
    ManifestMismatchError,
    PayloadError,
    TaskOptionsError,
)
from fl_edge.tasks.registry import load_task
from fl_edge.tasks.task import LoadContext
from fl_edge.training import local_training
from fl_edge.training.factory import executor_for
from tests.support.picture_folders import fill

pytestmark = pytest.mark.edge

OWN = partition(scheme="own", holdout=0.25)
CLASSES = ("blue", "green", "red")
HEAD = "images?model=resnet18&head_only=true"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = fill(tmp_path_factory.mktemp("pictures"), *CLASSES, count=12)
    fill(directory / "test", *CLASSES, count=3, seed=1)
    return directory


def new(values: int) -> Any:
    return np.empty(values, np.float32)


def trained(task: str, data: Path, epochs: int, **settings: Any) -> tuple[Any, Any, Any, Any]:
    """The executor, the manifest, the weights after a round, and the first weights."""
    executor = executor_for(task, data, "cpu")
    first: list[Any] = []

    def allocate(values: int) -> Any:
        first.append(new(values))
        return first[0]

    manifest = executor.initial_weights(3, allocate)
    request = training_request(epochs=epochs, batch_size=8, seed=3, **settings)
    update = executor.train(first[0].copy(), manifest, OWN, request, 1, "a", lambda: False, new)
    return executor, manifest, first[0] + update.delta, first[0]


@pytest.mark.parametrize(
    ("task", "epochs"), [("images", 15), pytest.param("images?grey=true&side=16", 60, marks=pytest.mark.long)]
)
def test_a_cnn_learns_and_an_edge_without_pictures_knows_the_labels(
    data: Path, task: str, epochs: int
) -> None:
    executor, manifest, weights, _ = trained(task, data, epochs, lr=0.02)
    assert executor.evaluate(weights, manifest, "test", "a", None).metrics["accuracy"] > 0.8
    payload = (data / "test" / "green" / "1.jpg").read_bytes()
    answer = executor_for(task, None, "cpu").make_predictor(weights, manifest)(payload)
    assert answer["label"] == "green"
    assert list(answer["probabilities"]) == list(CLASSES)
    assert executor.summarize("a", OWN).labels == dict.fromkeys(CLASSES, 12)


def test_pixels_are_decoded_once_and_kept_in_a_byte_each(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("images")
    task.prepare(data)
    loaded = task.load(LoadContext("a", OWN, data))
    assert loaded.train.inputs.dtype == torch.uint8
    assert loaded.train.inputs.shape == (27, 3, 32, 32)
    monkeypatch.setattr("fl_edge.tasks.images.read_picture", None)
    assert loaded.holdout is not None
    again = task.load(LoadContext("a", OWN, data)).holdout
    assert again is not None
    assert torch.equal(again.inputs, loaded.holdout.inputs)


def test_only_the_head_travels_and_every_version_has_the_same_frozen_trunk(data: Path) -> None:
    executor, manifest, weights, _ = trained(HEAD, data, 20, lr=0.02)
    assert manifest.values == 3 * 512 + 3
    assert [array.name for array in manifest.arrays if array.values] == ["fc.bias", "fc.weight"]
    # Training had the seed 3, an evaluation has none: both must see the same features.
    assert executor.evaluate(weights, manifest, "test", "a", None).metrics["accuracy"] > 0.8
    answer = executor_for(HEAD, None, "cpu").make_predictor(weights, manifest)(
        (data / "test" / "red" / "0.png").read_bytes()
    )
    assert answer["label"] == "red"


def test_training_the_head_leaves_the_trunk_as_it_is(data: Path) -> None:
    task = load_task(HEAD)
    task.prepare(data)
    model = local_training.build_model(task, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    settings = training_request(epochs=2)
    report = task.train(
        model, task.load(LoadContext("a", OWN, data)), settings, np.random.SeedSequence(0), lambda: False  # type: ignore[arg-type]
    )  # fmt: skip
    assert report.steps == 2
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}


@pytest.mark.long
def test_the_whole_of_resnet_trains_with_its_batch_norm(data: Path) -> None:
    executor, manifest, weights, first = trained("images?model=resnet18", data, 1, lr=0.01)
    assert not np.array_equal(weights, first)
    buffers = [array.name for array in manifest.arrays if array.role == "buffer" and array.values]
    assert "trunk.bn1.running_var" in buffers
    assert np.isfinite(executor.evaluate(weights, manifest, "test", "a", None).loss)


@pytest.mark.parametrize(
    ("head_only", "ending"),
    [
        (True, "safetensors"),
        (False, "pth"),
        *(pytest.param(*one, marks=pytest.mark.long) for one in ((True, "pth"), (False, "safetensors"))),
    ],
)
def test_weights_come_from_a_file(tmp_path: Path, ending: str, head_only: bool) -> None:
    from torchvision.models import resnet18

    fill(tmp_path, *CLASSES, count=2)
    torch.manual_seed(5)
    state = resnet18().state_dict()
    if ending == "pth":
        torch.save(state, tmp_path / "resnet.pth")
    else:
        save_file(state, tmp_path / "resnet.safetensors")
    spec = f"images?model=resnet18&weights=resnet.{ending}&head_only={str(head_only).lower()}"
    task = load_task(spec)
    task.prepare(tmp_path)
    model = local_training.build_model(task, 1)
    assert torch.equal(model.state_dict()["trunk.conv1.weight"], state["conv1.weight"])
    fc = model.get_submodule("fc")
    assert isinstance(fc, nn.Linear)
    assert fc.out_features == 3
    manifest, weights = local_training.initial_weights(task, 1)
    bare = executor_for(spec, None, "cpu")
    if head_only:
        with pytest.raises(DataMissingError, match=f"needs resnet.{ending}, the weights of ResNet-18"):
            bare.make_predictor(weights, manifest)
        other = executor_for(HEAD, tmp_path, "cpu")
        with pytest.raises(ManifestMismatchError, match="expected the same file of weights on all edges"):
            other.make_predictor(weights, manifest)
    else:
        bare.make_predictor(weights, manifest)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "w.pth: is missing, expected the weights of ResNet-18"),
        (b"nonsense", "w.pth: is no state_dict of ResNet-18"),
    ],
)
def test_a_wrong_file_of_weights_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    fill(tmp_path, *CLASSES, count=2)
    if content is not None:
        (tmp_path / "w.pth").write_bytes(content)
    task = load_task("images?model=resnet18&weights=w.pth")
    task.prepare(tmp_path)
    with pytest.raises(DataMissingError) as raised:
        local_training.build_model(task, 0)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "blue/0.png: is empty"),
        (b"GIF89a", "blue/0.png: is no PNG or JPEG"),
        (b"\x89PNG\r\n\x1a\n", "blue/0.png: the PNG cannot be read"),
    ],
)
def test_a_damaged_picture_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    fill(tmp_path, *CLASSES, count=2)
    (tmp_path / "blue" / "0.png").write_bytes(content)
    task = load_task("images")
    task.prepare(tmp_path)
    with pytest.raises(DataCorruptError, match=re.escape(words)):
        task.load(LoadContext("a", partition(scheme="own", holdout=0.0), tmp_path))


def test_other_classes_than_the_runs_are_named(data: Path, tmp_path: Path) -> None:
    _, manifest, weights, _ = trained("images", data, 1)
    fill(tmp_path, "blue", "red", count=2)
    with pytest.raises(DataMismatchError, match="class 'green' of the run has no folder; the run has: blue"):
        executor_for("images", tmp_path, "cpu").make_predictor(weights, manifest)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("head_only=true", "head_only and weights need model=resnet18"),
        ("model=resnet18&grey=true", "grey=true: ResNet-18 takes colours"),
        ("model=resnet18&weights=../x.pth", "weights=../x.pth: expected the name of a file in --data DIR"),
        ("model=resnet18&weights=..", "expected the name of a file"),
        ("side=8", "option side=8: Input should be greater than or equal to 16"),
    ],
)
def test_a_wrong_option_is_named(options: str, words: str) -> None:
    with pytest.raises(TaskOptionsError, match=re.escape(words)):
        load_task(f"images?{options}")


def test_too_many_pictures_are_refused_with_the_option(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_edge.tasks.images.MAX_PICTURE_BYTES", 1000)
    task = load_task("images")
    task.prepare(data)
    with pytest.raises(DataMissingError, match=r"27 pictures of 32 × 32 pixels have .*: --task-option side="):
        task.load(LoadContext("a", OWN, data))


def test_nonsense_is_no_picture(data: Path) -> None:
    executor, manifest, weights, _ = trained("images", data, 1)
    with pytest.raises(PayloadError):
        executor.make_predictor(weights, manifest)(b"nonsense")
