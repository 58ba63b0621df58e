"""CIFAR-10 is found and read in each of its forms."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fl_edge.data import datasets
from fl_edge.errors import DataCorruptError, DataMissingError

pytestmark = pytest.mark.edge

read = datasets.read.__wrapped__  # without the cache


def cifar(count: int, seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
    rows[:, 0] = rng.integers(0, 10, count)
    return rows.tobytes()


def put_cifar(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for i in range(1, 6):
        (directory / f"data_batch_{i}.bin").write_bytes(cifar(2, i))
    (directory / "test_batch.bin").write_bytes(cifar(3, 0))


@pytest.mark.parametrize("layout", ["", "cifar-10-batches-bin", "cifar10"])
def test_cifar10_is_read_from_its_binary_files(tmp_path: Path, layout: str) -> None:
    put_cifar(tmp_path / layout)
    train, test = (read("cifar10", split, tmp_path, False) for split in ("train", "test"))
    assert (train.images.shape, test.images.shape) == ((10, 32, 32, 3), (3, 32, 32, 3))
    raw = np.frombuffer(cifar(3, 0), dtype=np.uint8).reshape(3, 3073)
    np.testing.assert_array_equal(test.labels, raw[:, 0])
    # The second pixel of the first row: byte 1 of each plane.
    np.testing.assert_array_equal(test.images[0, 0, 1], raw[0, [2, 1026, 2050]])


def test_cifar10_is_read_out_of_its_archive(tmp_path: Path) -> None:
    put_cifar(tmp_path / "plain")
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "plain", "cifar-10-batches-bin")
    there, here = (
        read("cifar10", "train", tmp_path / "plain", False),
        read("cifar10", "train", tmp_path, False),
    )
    np.testing.assert_array_equal(here.images, there.images)
    assert not (tmp_path / "cifar-10-batches-bin").exists()


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(b"not a tar")
    with pytest.raises(DataCorruptError, match=r"tar.gz: cannot be read"):
        read("cifar10", "train", tmp_path, False)
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("x/test_batch.bin"), io.BytesIO())
    with pytest.raises(DataCorruptError, match=r"does not contain data_batch_1.bin"):
        read("cifar10", "train", tmp_path, False)
    with pytest.raises(DataCorruptError, match="0 bytes, expected a multiple of 3073"):
        read("cifar10", "test", tmp_path, False)


def put_pickles(parent: Path, content: bytes = b"cos\nsystem\n(S'touch opened'\ntR.") -> Path:
    folder = parent / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("form", ["parent", "folder", "archive"])
def test_pickles_are_not_opened_if_they_are_not_the_known_ones(home: Path, form: str) -> None:
    given = named = put_pickles(home)
    if form == "parent":
        given = home
    elif form == "archive":
        given = home / "work"
        named = given / "cifar-10-python.tar.gz"
        with tarfile.open(named, "w:gz") as tar:
            tar.add(home / "cifar-10-batches-py", "cifar-10-batches-py")
    with pytest.raises(DataCorruptError, match=re.escape(f"{named}: Dataset not found or corrupted")):
        read("cifar10", "train", given, False)
    assert not list(home.rglob("opened"))


@pytest.mark.parametrize("form", ["parent", "folder", "archive"])
def test_the_known_pickles_are_read(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of this test are made known, in torchvision's list of sums."""
    from torchvision.datasets import CIFAR10

    rows = np.frombuffer(cifar(2, 0), dtype=np.uint8).reshape(2, 3073)
    batch = pickle.dumps({"data": rows[:, 1:], "labels": rows[:, 0].tolist(), "label_names": ["a"]})
    folder = put_pickles(tmp_path, batch)
    md5 = hashlib.md5(batch).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{i}", md5] for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5})
    given = folder if form == "folder" else tmp_path
    if form == "archive":
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
            tar.add(folder, "../cifar-10-batches-py")
        folder.rename(tmp_path / "elsewhere")
    train, test = (read("cifar10", split, given, False) for split in ("train", "test"))
    assert (train.images.shape, test.images.shape) == ((10, 32, 32, 3), (2, 32, 32, 3))
    np.testing.assert_array_equal(test.labels, rows[:, 0])
    np.testing.assert_array_equal(test.images[0, 0, 1], rows[0, [2, 1026, 2050]])


@pytest.mark.parametrize("given", [True, False])
def test_every_form_and_place_is_said_when_cifar10_is_missing(home: Path, given: bool) -> None:
    with pytest.raises(DataMissingError) as caught:
        read("cifar10", "test", home if given else None, False)
    text = str(caught.value)
    for part in (
        "cifar-10-binary.tar.gz, cifar-10-python.tar.gz",
        "test_batch.bin, or batches.meta",
        str(home) if given else f"{home}/XDG_CACHE_HOME/fl-mqtt, data, {home}/HOME/data",
        "cifar-10-batches-py",
        "python -m scripts.fetch_data cifar10 DIR",
    ):
        assert part in text
    assert len(text) < 1000
